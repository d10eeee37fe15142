"""The page of a study: its table, figure, claims, training curves, and what was seen and missed.

    make study NAME=table6       # -> runs/studies/table6/study.html, written when the command ends

One file that opens offline. Of each row the pictures of its first seed are in it; the other seeds'
lie beside their results, to which the page links.
"""

import json
from pathlib import Path
from typing import Any

from jinja2 import Template

from train import page
from train.checkpoint import write_atomically
from train.config import RUNS
from train.errors import UsageError
from train.evaluation.result import RESULT
from train.studies import claims
from train.studies.catalogue import CONTROL, STUDIES
from train.studies.curves import draw as draw_curves
from train.studies.figure import draw as draw_figure
from train.studies.table import STUDY, caption, table

HTML = "study.html"

PAGE: Template = page.HTML.from_string(
    page.GRID
    + """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>GLAV: {{ name }}</title>
<style>{{ style }}
td:first-child { min-width: 14em } figure { margin: 0 }</style>
<h1>{{ name }}: {{ about }}</h1>
<p class="soft">{{ said }}</p>
{{ grid(heads, rows) }}
<img alt="means, seeds and intervals" src="data:image/png;base64,{{ figure }}">
{% if claims[1] %}
<h2>What the paper says of it</h2>
<p class="soft">Differences between rows of the same seed, in points; a claim held where the
95 % interval of their mean is above zero. A star: not when all of this table are taken together
(false discovery rate 5 %).</p>
{{ grid(*claims) }}
{% endif %}
{% if curves %}
<h2>Training</h2>
<p class="soft">Thin: each seed; thick: their mean, with its 95 % interval from three seeds on.</p>
<img alt="training curves" src="data:image/png;base64,{{ curves }}">
{% endif %}
<h2>What was seen, and what was missed</h2>
{% for row in looks %}
<details{% if row.open %} open{% endif %}><summary>{{ row.label }}</summary>
{% for one in row.results %}
<p><a href="{{ one.link }}">{{ one.name }}</a> <span class="soft">{{ one.also }}</span></p>
<div class="panels">{% for picture in one.pictures %}
<figure><img alt="{{ picture.name }}" src="data:image/{{ picture.kind }};base64,{{ picture.data }}">
<figcaption class="soft">{{ picture.name }}</figcaption></figure>
{% endfor %}</div>
{% endfor %}
</details>
{% endfor %}
</html>
"""
)


def is_study(name: str) -> bool:
    """Whether a name or path, as `python -m train report` takes them, is a study's folder."""
    return (_folder(name) / STUDY).is_file()


def rewrite(name: str) -> Path:
    """The page of the study of a name or path, anew."""
    return write(_folder(name))


def _folder(name: str) -> Path:
    return Path(name) if "/" in name else RUNS / "studies" / name


def write(folder: Path) -> Path:
    """Write FOLDER/study.html from its study.json, and from the results below the folder's own.

    Raises:
        UsageError: it cannot be read, or is of a study that this program does not have.
    """
    try:
        facts = json.loads((folder / STUDY).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / STUDY} cannot be read ({error}); the command of the study "
                         "writes it anew")  from error  # fmt: skip
    if facts["name"] not in STUDIES:
        raise UsageError(
            f"{folder / STUDY} is of the study {facts['name']!r}; known: {', '.join(STUDIES)}. "
            "Remove the folder if it is of an old version"
        )
    study = STUDIES[facts["name"]]
    heads, rows = table(facts)
    curves = draw_curves(study, facts.get("curves", {}))
    html = PAGE.render(
        style=page.STYLE + page.STYLE_OF_RESULTS, name=facts["name"], about=facts["about"],
        said=caption(facts),
        heads=heads, rows=rows, figure=page.png(draw_figure(facts)),
        claims=claims.table({facts["name"]: facts}, claims.about(facts["name"])),
        curves=page.png(curves) if curves else "", looks=_looks(folder, facts),
    )  # fmt: skip
    write_atomically(folder / HTML, html)
    return folder / HTML


def _looks(folder: Path, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each row the results of its first seed with their pictures, and links to the others."""
    random = {row.label for row in STUDIES[facts["name"]].all_rows if not row.trained}
    found = {label: _results(folder, facts, label)
             for label in dict.fromkeys(one["row"] for one in facts["results"])}  # fmt: skip
    first = next((label for label in found if label not in random), None)
    return [{"label": label, "results": results, "open": label == first}
            for label, results in found.items() if results]  # fmt: skip


def _results(folder: Path, facts: dict[str, Any], label: str) -> list[dict[str, Any]]:
    """A result a task, of the first seed that has one."""
    found: dict[str, list[str]] = {}
    for one in facts["results"]:
        for column, score in one["scores"].items():
            if one["row"] == label and score.get("result") and CONTROL not in column:
                found.setdefault(column, []).append(score["result"])
    return [
        {"name": first, "link": f"../{first}/{RESULT}",
         "pictures": page.pictures_of(folder.parent / first),
         "also": f"also: {', '.join(others)}" if others else ""}
        for first, *others in found.values()
    ]  # fmt: skip
