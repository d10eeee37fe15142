"""The tables of the papers with our rows, and other results, as Markdown and HTML."""

from collections.abc import Iterable, Sequence

from train.papers import PAPERS, Table
from train.tables import OURS, Cell, Filled, Result, Row, note_of, run_name, shown


def markdown(tables: Iterable[Filled], rest: Sequence[Result] = ()) -> str:
    """All tables as GitHub's Markdown; `rest` are results without a table."""
    parts = [_markdown_of(one) for one in tables]
    if rest:
        parts.append("\n".join(["## Other results", "", *grid(OTHER_HEADER, other_rows(rest))]))
    return "\n\n".join(parts) + "\n"


def _markdown_of(one: Filled) -> str:
    lines = [f"## {title(one.table)}", ""]
    if one.table.note:
        lines += [one.table.note, ""]
    rows = [[*keys, *numbers] for keys, numbers in paper_rows(one.table)]
    rows += [[f"**{keys[0]}**", *keys[1:], *cells] for keys, cells in our_rows(one)]
    lines += grid(header(one.table), rows)
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(one.notes, 1))]
    return "\n".join(lines).rstrip()


def grid(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [_line(names), _line(["---"] * len(names)), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in cells) + " |"


def title(table: Table) -> str:
    """Paper, number and what it is about."""
    authors, *_, venue = PAPERS[table.paper].split(", ")
    return f"{authors}, {venue}, Table {table.table}: {table.title}"


def header(table: Table) -> list[str]:
    """Names of all columns; an arrow says which way is better."""
    arrows = {True: "↑", False: "↓"}
    return [*table.keys, *(f"{c.name} {arrows[c.higher_is_better]}" for c in table.columns)]


def paper_rows(table: Table) -> list[tuple[list[str], list[str]]]:
    """Keys and numbers as printed; `Ours` in a paper is its authors'."""
    return [
        (
            ["" if key is None else _of_the_paper(str(key)) for key in keys],
            ["–" if number is None else str(number) for number in numbers],
        )
        for keys, numbers in table.rows
    ]


def _of_the_paper(key: str) -> str:
    return f"{key} (of the paper)" if key == "Ours" or key.startswith("Ours ") else key


def our_rows(one: Filled) -> list[tuple[list[str], list[str]]]:
    """Keys and cells; a row without numbers where nothing was run."""
    empty = [Row((f"{OURS}: not run", *[""] * (len(one.table.keys) - 1)))]
    return [
        (list(row.keys), [_text(row.cells.get(column.name)) for column in one.table.columns])
        for row in one.rows or empty
    ]


def _text(cell: Cell | None) -> str:
    return "" if cell is None else " ".join([cell.text, *(f"({note})" for note in cell.notes)])


OTHER_HEADER = ("run", "task", "dataset", "protocol", "metrics", "notes")


def other_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One row a result, with all its metrics."""
    return [
        (
            run_name(result), result["task"], result["dataset"], result["protocol"],
            ", ".join(f"{one['name']} {shown(one)}" for one in result["metrics"]), note_of(result),
        )
        for result in results
    ]  # fmt: skip


TEMPLATE = """
{% for one in tables %}
<h2>{{ title(one.table) }}</h2>
{% if one.table.note %}<p>{{ one.table.note }}</p>{% endif %}
<table>
<tr>{% for name in header(one.table) %}<th>{{ name }}</th>{% endfor %}</tr>
{% for keys, numbers in paper_rows(one.table) %}
<tr>{% for cell in keys + numbers %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
{% for keys, cells in our_rows(one) %}
<tr class="ours">{% for cell in keys + cells %}<td><b>{{ cell }}</b></td>{% endfor %}</tr>
{% endfor %}
</table>
{% if one.notes %}<ol>{% for note in one.notes %}<li>{{ note }}</li>{% endfor %}</ol>{% endif %}
{% endfor %}
{% if rest %}
<h2>Other results</h2>
<table>
<tr>{% for name in other_header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in other_rows(rest) %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
"""


def html(tables: Iterable[Filled], rest: Sequence[Result] = ()) -> str:
    """The same as a piece of HTML, to be put into a page (`train.page.STYLE`)."""
    from train.page import HTML

    return HTML.from_string(TEMPLATE).render(
        tables=list(tables), rest=rest, title=title, header=header, paper_rows=paper_rows,
        our_rows=our_rows, other_rows=other_rows, other_header=OTHER_HEADER,
    ).strip()  # fmt: skip
