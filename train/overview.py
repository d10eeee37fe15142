"""`python -m train report` without a RUN: all results beside the papers', in one page.

    make report                      # -> runs/report.html and runs/report.md

The papers' tables with our rows (empty where nothing was run), every result with its rounds,
training curve, confusions, examples and pictures, and each run's losses and attention maps. Of
studies it has the tables and figures; their evaluations, hundreds, are shown in pages of their own.
The page is one file that opens offline; the Markdown holds the tables.
"""

import glob
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Template
from markupsafe import Markup

from train import curves, tables, tabletext
from train.checkpoint import write_atomically
from train.config import RUNS
from train.curves import LOSSES, RETRIEVAL
from train.errors import UsageError
from train.evaluation.result import PREDICTIONS, RESULT, Predictions
from train.livepage import REPORT
from train.page import GRID, HTML, STYLE, STYLE_OF_RESULTS, figure, pictures_of, png
from train.record import Record, read_run
from train.report import attention_of, headline
from train.studies.figure import draw as draw_study
from train.studies.page import write as write_study
from train.studies.table import STUDY, caption, table as study_table

MARKDOWN = "report.md"
SHOWN_EXAMPLES = 12
SHOWN_RUNS = 8
"""Runs whose curves are in the page; of the others there are links."""

PAGE: Template = HTML.from_string(
    GRID
    + """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>GLAV: results</title>
<style>{{ style }}
nav a { margin-right: .9em } ol { font-size: 13px; color: #444 }</style>
<h1>Results</h1>
<p class="soft">{{ folder }}, as of {{ now }}. Numbers in brackets: 95 % bootstrap intervals over
test items. A cell is empty where nothing was run.</p>
<nav>{% for study in studies %}<a href="#{{ study.name }}">{{ study.name }}</a> {% endfor %}
{% for one in results %}<a href="#{{ one.anchor }}">{{ one.title }}</a> {% endfor %}
<a href="#papers">the papers' tables</a> <a href="#runs">runs</a></nav>
{% for study in studies %}
<h2 id="{{ study.name }}">{{ study.name }}: {{ study.about }}</h2>
<p class="soft">{{ study.said }}</p>
{{ grid(study.heads, study.rows) }}
<img alt="{{ study.name }}: means, seeds and intervals" src="data:image/png;base64,{{ study.png }}">
<p><a href="{{ study.link }}">Training curves, and what each row saw and missed</a></p>
{% endfor %}
{% if of_studies %}
<p>The {{ of_studies }} evaluations of studies are not listed here, but in their tables and beside
their runs.</p>
{% endif %}
{% if not results and not of_studies %}
<p>No evaluation has been run yet: <code>make eval TASK=...</code> lists the tasks.</p>
{% elif results %}
<h2>All results</h2>
{{ grid(overview_heads, overview) }}
{% endif %}
{% for one in results %}
<h2 id="{{ one.anchor }}">{{ one.title }}</h2>
<p class="soft">{{ one.said }}</p>
{% for note in one.notes %}<p>Note: {{ note }}.</p>{% endfor %}

{{ grid(one.heads, one.rows) }}
<div class="panels">
{% if one.curve %}<img alt="training" src="data:image/png;base64,{{ one.curve }}">{% endif %}

{% for picture in one.pictures %}
<figure><img alt="{{ picture.name }}" src="data:image/{{ picture.kind }};base64,{{ picture.data }}">
<figcaption class="soft">{{ picture.name }}</figcaption></figure>
{% endfor %}
</div>
{% if one.examples %}
<details{% if one.open %} open{% endif %}><summary>{{ one.examples_title }}</summary>
{{ grid(one.example_heads, one.examples) }}</details>
{% endif %}
{% endfor %}
<h2 id="papers">The papers' tables</h2>
<div class="scroll">{{ papers }}</div>
<h2 id="runs">Runs</h2>
{% for run in runs %}
<h3><a href="{{ run.link }}">{{ run.name }}</a></h3>
{{ grid((), run.facts) }}
<div class="panels">
{% for panel in run.panels %}
<img alt="{{ panel.name }}" src="data:image/png;base64,{{ panel.png }}">
{% endfor %}
</div>
{% for one in run.attention %}
<p class="soft">Attention, {{ one.name }}. {{ one.said }}</p>
{% if one.rows %}{{ grid(one.heads, one.rows) }}{% endif %}

<img alt="{{ one.name }}" src="data:image/jpeg;base64,{{ one.jpeg }}">
{% endfor %}
{% endfor %}
</html>
"""
)


def write(folder: Path = RUNS) -> tuple[Path, Path]:
    """Write FOLDER/report.html and FOLDER/report.md.

    Args:
        folder: where runs are.

    Raises:
        UsageError: there is no such folder, or a result in it cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder}, so there is nothing to report; train a run (`make "
            "pretrain`) or evaluate one (`make eval TASK=...`)"
        )
    paths = _below(folder, f"**/eval/**/{RESULT}")
    studies = [_study(folder, path.parent) for path in _below(folder, f"**/{STUDY}")]
    roots = {(folder / study["link"]).parents[1] for study in studies} - {folder}
    of_studies = [path for path in paths if roots & set(path.parents)]
    paths = [path for path in paths if path not in of_studies]
    results = [tables.read_result(path) for path in paths]
    filled, rest = tables.filled(results), tables.others(results)
    page, text = folder / REPORT, folder / MARKDOWN
    write_atomically(text, "# Results\n\n" + _overview_text(results, bool(studies))
                     + "".join(map(_study_text, studies))
                     + tabletext.markdown(filled, rest))  # fmt: skip
    html = PAGE.render(
        style=STYLE + STYLE_OF_RESULTS,
        folder=folder.resolve(),
        now=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        overview_heads=OVERVIEW,
        overview=[_overview(result) for result in results],
        results=[_section(path, one) for path, one in zip(paths, results, strict=True)],
        studies=studies,
        of_studies=len(of_studies),
        papers=Markup(tabletext.html(filled, ())),
        runs=_runs(folder),
    )
    write_atomically(page, html)
    return page, text


def _below(folder: Path, pattern: str) -> list[Path]:
    """Files, also in runs that are links to other places."""
    found = glob.glob(str(folder / pattern), recursive=True)  # Path.glob follows no links
    return sorted(map(Path, found))


# --- all results --------------------------------------------------------------------------------

OVERVIEW = ("task", "protocol", "model", "result", "scored")


def _overview(result: dict[str, Any]) -> list[str]:
    metric = result["metrics"][0]
    return [
        result["task"],
        _protocol(result),
        tables.run_name(result),
        f"{metric['name']} {tables.shown(metric)}",
        f"{result['n_scored']:,} of {result['n_expected']:,}",
    ]


def _overview_text(results: Sequence[dict[str, Any]], with_studies: bool) -> str:
    if not results:
        return "" if with_studies else "No evaluation has been run yet.\n\n"
    return _grid_text(OVERVIEW, [_overview(result) for result in results])


def _grid_text(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(tabletext.grid(heads, rows)) + "\n\n"


# --- studies ------------------------------------------------------------------------------------


def _study(folder: Path, study: Path) -> dict[str, Any]:
    """Its table and figure, and a link to its own page, which is written anew."""
    facts = json.loads((study / STUDY).read_bytes())
    heads, rows = study_table(facts)
    link = write_study(study).relative_to(folder)
    return {"name": study.name, "about": facts["about"], "said": caption(facts), "heads": heads,
            "rows": rows, "png": png(draw_study(facts)), "link": link}  # fmt: skip


def _study_text(study: dict[str, Any]) -> str:
    return (f"## {study['name']}: {study['about']}\n\n{study['said']}\n\n"
            + _grid_text(study["heads"], study["rows"]))  # fmt: skip


def _protocol(result: dict[str, Any]) -> str:
    """With what of the settings is worth a word."""
    settings = result.get("settings") or {}
    words = [result["protocol"], settings.get("modality", "")]
    if settings.get("pictures") in ("lip", "face", "box"):
        words.append(f"{settings['pictures']} crops")
    if settings.get("pooling") == "full_attention":
        words.append("attention pooling by the sound")
    if settings.get("features") in ("g", "l"):
        words.append(f"features {settings['features']}")
    if settings.get("layer"):
        words.append(f"layer {settings['layer']}")
    if tuple(settings.get("cells") or (1, 1, 1)) != (1, 1, 1):
        words.append(f"{'x'.join(map(str, settings['cells']))} cells")
    if settings.get("context", 1) != 1:
        words.append(f"{settings['context']} frames of context")
    if labels := (result.get("config") or {}).get("labels"):
        words.append(f"{labels} labels a class")
    words += tables.encoder_rate(result)
    return ", ".join(word for word in words if word)


# --- one result ---------------------------------------------------------------------------------


def _section(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    folder = path.parent
    rounds = result.get("rounds") or []
    heads, rows = _numbers(result, rounds)
    predictions = _predictions(folder, rounds)
    return {
        "anchor": "-".join(folder.parts[-3:]),
        "title": f"{folder.name} ({folder.parent.parent.name})",
        "said": f"{_protocol(result)}; {tables.run_name(result)}; {result['n_scored']:,} of "
                f"{result['n_expected']:,} clips scored (coverage {tables.coverage(result)}); "
                f"shards {(result.get('shards') or {}).get('name', '')}",
        "notes": result.get("notes") or [],
        "heads": heads,
        "rows": rows,
        "curve": _curve(rounds),
        "pictures": pictures_of(folder),
        **_examples(predictions),
    }  # fmt: skip


def _numbers(
    result: dict[str, Any], rounds: Sequence[dict[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: a row a round and one for all; of one round a row a metric."""
    if len(rounds) < 2:
        return ["metric", "value"], [[m["name"], tables.shown(m)] for m in result["metrics"]]
    names = [metric["name"] for metric in result["metrics"]]
    rows = [[one["name"], f"{one['n']:,}", *_cells(one["metrics"], names)] for one in rounds]
    rows.append(["all", f"{result['n_scored']:,}", *_cells(result["metrics"], names)])
    return ["round", "scored", *names], rows


def _cells(metrics: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    found = {metric["name"]: tables.shown(metric) for metric in metrics}
    return [found.get(name, "") for name in names]


def _predictions(folder: Path, rounds: Sequence[dict[str, Any]]) -> list[Predictions]:
    files = [folder / one["name"] / PREDICTIONS for one in rounds]
    return [Predictions.read(file) for file in files if file.is_file()]


def _curve(rounds: Sequence[dict[str, Any]]) -> str:
    """Loss and validation score of each round's training over its epochs; empty without one."""
    trained = [one for one in rounds if one.get("history")]
    if not trained:
        return ""
    scored = any("score" in step for one in trained for step in one["history"])
    drawn, axes = figure(1 + scored, 5.2, 2.2 * (1 + scored))
    for one in trained:
        epochs = [step["epoch"] for step in one["history"]]
        axes[0].plot(epochs, [step["loss"] for step in one["history"]], label=one["name"])
        if scored:
            axes[1].plot(epochs, [step.get("score", np.nan) for step in one["history"]])
    axes[0].set(ylabel="training loss")
    axes[-1].set(xlabel="epoch")
    if scored:
        axes[1].set(ylabel="validation score")
    if len(trained) <= 10:
        axes[0].legend(fontsize=7, ncols=2)
    return png(drawn)


def _examples(predictions: Sequence[Predictions]) -> dict[str, Any]:
    """Texts as they were read; of classes the surest mistakes, or the first guesses."""
    if not predictions:
        return {}
    targets = predictions[0].targets
    if targets and isinstance(targets[0], str) and isinstance(predictions[0].said[0], str):
        return _texts(predictions)
    if targets and isinstance(targets[0], int) and isinstance(predictions[0].said[0], int):
        return _mistakes(predictions)
    return {}


def _texts(predictions: Sequence[Predictions]) -> dict[str, Any]:
    one = predictions[0]
    places = np.linspace(0, len(one.names) - 1, min(SHOWN_EXAMPLES, len(one.names))).astype(int)
    return {
        "examples_title": f"{len(places)} of the sentences, evenly picked",
        "open": True,
        "example_heads": ("clip", "said", "read"),
        "examples": [(one.names[i], one.targets[i], one.said[i]) for i in places.tolist()],
    }


def _mistakes(predictions: Sequence[Predictions]) -> dict[str, Any]:
    rows = sorted((mistake for one in predictions for mistake in one.mistakes()), reverse=True)
    if not rows:
        return {}
    return {
        "examples_title": f"the surest of {len(rows):,} mistakes",
        "open": False,
        "example_heads": ("clip", "is", "was said to be", "score"),
        "examples": [(name, true, said, f"{score:.3f}")
                     for score, _, name, true, said in rows[:SHOWN_EXAMPLES]],
    }  # fmt: skip


# --- runs ---------------------------------------------------------------------------------------


def _runs(folder: Path) -> list[dict[str, Any]]:
    """The newest runs with their losses, the others by name."""
    found = sorted(folder.glob("*/config.json"), key=lambda path: -path.stat().st_mtime)
    return [_run(path.parent, with_curves=number < SHOWN_RUNS) for number, path in enumerate(found)]


def _run(folder: Path, with_curves: bool) -> dict[str, Any]:
    try:
        run = read_run(str(folder.resolve()))
    except (UsageError, json.JSONDecodeError) as error:
        return {"name": folder.name, "link": "", "facts": [["", str(error)]]}
    return {
        "name": folder.name,
        "link": f"{folder.name}/{REPORT}" if (folder / REPORT).is_file() else "",
        "facts": headline(run)[:5],
        "panels": _panels(run) if with_curves else [],
        "attention": attention_of(folder) if with_curves else [],
    }


def _panels(run: Record) -> list[dict[str, str]]:
    groups = curves.panels([run])
    return [
        {"name": panel.name, "png": curves.drawn(panel, [run.folder.name], max(1, run.last_step))}
        for title in (LOSSES, RETRIEVAL)
        for panel in groups.get(title, [])
    ]
