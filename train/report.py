"""`python -m train report RUN [RUN ...]`: a run as a page that is looked at rather than read.

    python -m train report glcm-tiny                       # -> runs/glcm-tiny/report.html
    python -m train report runs/first runs/second          # both in one -> runs/second/compare.html

One file that opens offline: what ran and how it ended, each signal's last and best value with
chance beside it, every number that was measured as a curve over steps, the attention maps that the
task localization drew, the sets and the whole configuration. Several runs share each panel, under
the table of what they do differently. It is made from what the run left (metrics.jsonl,
config.json, origin.json), so it can be made at any time, also while the run goes on, and on another
machine. `train pretrain` writes it by itself (--no-page: not).
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from train import curves
from train.checkpoint import BEST, LAST, write_atomically
from train.curves import GROUPS, LOSSES, OPTIMISER, RETRIEVAL, SPEED, Panel
from train.diff import code, code_facts, number, results, sets, settings
from train.errors import UsageError
from train.evaluation.result import ATTENTION_PICTURES, MOVING, ROUND
from train.facts import HELD_OUT, better
from train.livepage import REPORT
from train.page import HTML, STYLE, as_it_is, jpeg_of
from train.record import LAST_STEPS, Record, read_run

COMPARISON = "compare.html"
ATTENTION_MAPS = ("learned", "foreign_sound", "other_class", "centre", "chance")

LINES = "Thin: each step; thick: the mean over a twenty-fifth of the run."
LINES_OF_RUNS = (
    "Lines: training, the mean over a twenty-fifth of the run. Dots: held out. Open squares: held "
    "out, with swapped sound. Dashes: chance."
)
NOTES = {
    LOSSES: "The gap is the loss "
    "with swapped sound less the loss with the right one: what was learnt from a clip's own sound.",
    RETRIEVAL: "A tie counts as a miss, so a model that gives one answer to all is at 0.",
}

PAGE = HTML.from_string("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>{{ style }}
.facts th { font-weight: normal; color: #666; white-space: nowrap }
.numbers td { font-variant-numeric: tabular-nums } .numbers tr+tr { border-top: 1px solid #e4e4e4 }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(520px, 1fr)); gap: 14px }
figure { margin: 0 } figcaption { font-weight: 600 } code { word-break: break-all }
.soft, figcaption code { color: #666; font-weight: normal }
summary { cursor: pointer; margin-top: 1.6em; font-size: 1.2em; font-weight: 600 }</style>
{% macro table(rows, heads=(), kind="numbers") %}
<table class="{{ kind }}">
{% if heads %}
<tr>{% for head in heads %}<th>{{ head }}{% endfor %}

{% endif %}
{% for row in rows %}
<tr><th>{{ row[0] }}{% for cell in row[1:] %}<td>{{ cell }}{% endfor %}

{% endfor %}
</table>
{% endmacro %}
<h1>{{ title }}</h1>
<p class="soft">{{ subtitle }}</p>
{% if headline %}
{{ table(headline, kind="facts") }}
{% endif %}
{% for section in tables %}
{% if section.rows %}
<h2>{{ section.title }}</h2>
{% if section.note %}<p class="soft">{{ section.note }}</p>{% endif %}

{{ table(section.rows, section.heads) }}
{% endif %}
{% endfor %}
{% if not groups %}
<p>No step was measured yet: there are no curves.</p>
{% endif %}
{% for group in groups %}
<h2>{{ group.title }}</h2>
<p class="soft">{{ lines if loop.first }} {{ group.note }}</p>
<div class="panels">
{% for panel in group.panels %}
<figure><figcaption>{{ panel.title }} <code>{{ panel.name }}</code></figcaption>
<img alt="{{ panel.name }} over steps" src="data:image/png;base64,{{ panel.png }}"></figure>
{% endfor %}
</div>
{% endfor %}
{% for one in attention %}
<h2>Where the model listens: {{ one.name }}</h2>
{% if one.rows %}
<p class="soft">pointing_game: does the map's peak lie in the box of what sounds; mass_ratio: share
of its mass there over a uniform map's; mean over clips [95 % bootstrap interval].</p>
{{ table(one.rows, one.heads) }}
{% endif %}
<img alt="{{ one.name }}" src="data:image/jpeg;base64,{{ one.jpeg }}">
{% if one.moving %}
<img alt="{{ one.name }}, moving" src="data:image/webp;base64,{{ one.moving }}">
{% endif %}
{% endfor %}
{% for section in folded %}
<details><summary>{{ section.title }}</summary>
{{ table(section.rows, section.heads) }}
</details>
{% endfor %}
</html>
""")


class Section(NamedTuple):
    """A titled table."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def report(names: Sequence[str], out: Path | None = None) -> Path:
    """Write the page of a run, or of several in one.

    Args:
        names: below runs/, or paths.
        out: where it goes; None is report.html in the run's folder, for several runs compare.html
            in the last one's.

    Raises:
        UsageError: one of them is no run, or there are too many.
    """
    if len(names) > len(curves.COLOURS):
        raise UsageError(
            f"{len(names)} runs; no more than {len(curves.COLOURS)} colours can be told apart in "
            "one page: name fewer"
        )
    runs = [read_run(name) for name in names]
    page = one_page(runs[0]) if len(runs) == 1 else comparison(runs)
    path = out or runs[-1].folder / (REPORT if len(runs) == 1 else COMPARISON)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)
    return path


def one_page(run: Record) -> str:
    """The page of a run."""
    return PAGE.render(
        style=STYLE,
        title=title_of(run),
        subtitle=f"{run.folder.resolve()}, as of {_clock(time.time())}",
        headline=headline(run),
        tables=[
            Section("Signals", SIGNAL_HEADS, signals(run), SIGNAL_NOTE),
            Section("Sets", SET_HEADS, set_rows(run)),
        ],
        groups=_groups([run], [title_of(run)]),
        lines=LINES,
        attention=attention_of(run.folder),
        folded=[Section("Configuration", (), config_rows(run))],
    )


def comparison(runs: Sequence[Record]) -> str:
    """Several runs in one page."""
    names = unique_names(runs)
    heads = ["", *names]
    return PAGE.render(
        style=STYLE,
        title="Runs side by side",
        subtitle=f"as of {_clock(time.time())}",
        tables=[
            Section("Runs", heads, across(runs)),
            Section("What they do differently", heads,
                    [*settings(*runs), *code(*runs), *sets(*runs)]),
            Section("Signals", heads, signals_across(runs),
                    f"Held out, last; in brackets training, mean of the last {LAST_STEPS} steps."),
        ],
        groups=_groups(runs, names),
        lines=LINES_OF_RUNS,
        attention=[],
        folded=[Section("All results", heads, results(*runs))],
    )  # fmt: skip


# --- facts ----------------------------------------------------------------------------------------


def title_of(run: Record) -> str:
    """The run's name."""
    return run.folder.resolve().name


def unique_names(runs: Sequence[Record]) -> list[str]:
    """The runs' names; with the folders above where two have the same."""
    paths = [run.folder.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


def headline(run: Record) -> list[list[str]]:
    """What ran, how far, on what, and how it ended."""
    code_of = code_facts(run.origin)
    device = run.origin.get("device", "device not recorded")
    changed = f", uncommitted: {code_of['uncommitted']}" if "git" in run.origin else ""
    return [
        ["state", _state(run)],
        ["method", f"{run.config['method']}, preset {run.config['preset'] or 'default'}"],
        ["progress", _progress(run)],
        ["batch", _batch(run)],
        ["clips", _clips(run)],
        ["device", f"{device}, torch {code_of['torch']}"],
        ["time", _time(run)],
        ["commit", code_of["commit"] + changed],
        *([["plugins", code_of["plugins"]]] if run.origin.get("plugins") else []),
        ["checkpoint last", run.pointer(LAST) or "none yet"],
        ["checkpoint best", _best(run)],
    ]


def across(runs: Sequence[Record]) -> list[list[str]]:
    """The headlines of several runs, a column each."""
    facts = [dict(headline(run)) for run in runs]
    names = dict.fromkeys(name for one in facts for name in one)
    return [[name, *(one.get(name, "-") for one in facts)] for name in names]


SIGNAL_HEADS = ("", f"training, last {LAST_STEPS} steps", "held out, last",
                "held out, best", "swapped sound, last", "gap, last",
                "shifted sound, last", "chance")  # fmt: skip
SIGNAL_NOTE = ("Held-out clips are clips the model is not trained on. Swapped sound is each clip "
               "with another clip's, shifted sound its own at another time: a good model is far "
               "from chance with the right sound, and not with these.")  # fmt: skip


def signals(run: Record) -> list[list[str]]:
    """Last and best values of each fact of the method, with its controls."""
    rows = []
    for panel in signal_panels([run]):
        held = HELD_OUT + panel.name
        cells = [_end(run, panel.name), _last(run, held), _best_of(run, held)]
        cells += [_last(run, held + end) for end in ("_swapped", "_gap", "_shifted")]
        rows.append([panel.look.title, *cells, _chance(panel)])
    return rows


def signals_across(runs: Sequence[Record]) -> list[list[str]]:
    """Each fact's newest values, a column a run."""
    return [
        [panel.look.title, *(_newest(run, panel.name) for run in runs)]
        for panel in signal_panels(runs)
    ]


def signal_panels(runs: Sequence[Record]) -> list[Panel]:
    """Of what the method measures; not of the optimiser, the machine, or a fact's gap."""
    groups = curves.panels(runs)
    return [
        panel
        for title in GROUPS
        if title not in (OPTIMISER, SPEED)
        for panel in groups.get(title, [])
        if not panel.name.endswith("_gap")
    ]


def _newest(run: Record, name: str) -> str:
    held, trained = _last(run, HELD_OUT + name), _end(run, name)
    return "-" if (held, trained) == ("-", "-") else f"{held} ({trained})"


def _end(run: Record, name: str) -> str:
    return number(run.series[name].end if name in run.series else None)


def _last(run: Record, name: str) -> str:
    return number(run.series[name].last if name in run.series else None)


def _best_of(run: Record, name: str) -> str:
    choose = better(name)
    if choose is None or name not in run.series:
        return "-"
    steps, values = run.series[name]
    best = choose(values.tolist())
    return f"{number(best)} (step {steps[values.tolist().index(best)]:,})"


def _chance(panel: Panel) -> str:
    levels = {curve.role: number(curve.series.last) for curve in panel.curves}
    held, trained = (levels.get(role, "") for role in curves.LEVELS)
    return f"{held}, in training {trained}" if trained else held or "-"


SET_HEADS = ("set", "clips", "clips an epoch", "shorter than the window", "shards", "complete",
             "path")  # fmt: skip


def set_rows(run: Record) -> list[list[str]]:
    """The sets of the last call, where they were recorded."""
    return [
        [name, *(f"{facts[key]:,}" for key in ("clips", "clips_per_epoch", "too_short", "shards")),
         "yes" if facts["complete"] else "no, more may follow", facts["path"]]
        for name, facts in run.origin.get("sets", {}).items()
    ]  # fmt: skip


def config_rows(run: Record) -> list[list[str]]:
    """Every setting."""
    return [[name, json.dumps(value)] for name, value in sorted(run.config.items())]


def _state(run: Record) -> str:
    at = run.series.get("time")
    return run.state + (f"; last step at {_clock(at.last)}" if at else "")


def _progress(run: Record) -> str:
    if "epoch" not in run.series:
        return "no step yet"
    epoch = run.series["epoch"]
    planned = run.config.get("schedule_steps")
    of_steps = f" of {planned:,}" if planned else ""
    of_epochs = f" of {run.config['epochs']:,}" if not planned and "epochs" in run.config else ""
    return f"step {epoch.steps[-1]:,}{of_steps}; epoch {epoch.last:.2f}{of_epochs}"


def _batch(run: Record) -> str:
    on_a_device, ranks = run.clips_on_a_device, run.origin.get("ranks")
    accumulated = run.config.get("accumulation", 1)
    said = f"{on_a_device} clips a device x {ranks or 'unknown'} ranks x {accumulated} accumulated"
    return f"{said} = {on_a_device * ranks * accumulated:,} a step" if ranks else said


def _clips(run: Record) -> str:
    found = run.origin.get("sets", {}).values()
    if not found:
        return "sets not recorded"
    clips, shards = (sum(facts[key] for facts in found) for key in ("clips", "shards"))
    split = run.config.get("split")
    of_sets = "1 set" if len(found) == 1 else f"{len(found)} sets"
    return f"{clips:,} of split {split}, in {shards:,} shards of {of_sets}"


def _time(run: Record) -> str:
    if "step_seconds" not in run.series or "time" not in run.series:
        return "no step yet"
    first, last = run.series["time"].values[[0, -1]]
    seconds = int(run.series["step_seconds"].values.sum())
    spent = f"{seconds // 3600} h {seconds // 60 % 60:02d} min {seconds % 60:02d} s in steps"
    return f"{spent}, from {_clock(first)} to {_clock(last)}"


def _best(run: Record) -> str:
    name, best = run.pointer(BEST), run.best()
    if not name:
        return "none yet: nothing was measured on held-out clips"
    return f"{name}, chosen by {best}" if best else f"{name}; what chose it is not in metrics.jsonl"


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


# --- pictures -------------------------------------------------------------------------------------


def _groups(runs: Sequence[Record], names: Sequence[str]) -> list[dict[str, Any]]:
    """Groups of panels, drawn."""
    last_step = max(1, *(run.last_step for run in runs))
    return [
        {
            "title": title,
            "note": NOTES.get(title, ""),
            "panels": [
                {
                    "name": panel.name,
                    "title": panel.look.title,
                    "png": curves.drawn(panel, names, last_step),
                }
                for panel in panels
            ],
        }
        for title, panels in curves.panels(runs).items()
    ]


def attention_of(folder: Path) -> list[dict[str, Any]]:
    """What `train eval --task localization` drew and measured with the run."""
    found = []
    for path in sorted(folder.glob(f"eval/*/{ATTENTION_PICTURES}")):
        name = path.stem.removeprefix("attention-")
        moving = path.with_suffix(MOVING)
        one: dict[str, Any] = {"name": f"{path.parent.name}, {name}", "jpeg": jpeg_of(path),
                               "moving": as_it_is(moving) if moving.is_file() else ""}  # fmt: skip
        stored = path.parent / name / ROUND
        metrics = json.loads(stored.read_bytes())["metrics"] if stored.is_file() else []
        found.append({**one, "heads": ["", "clips", *ATTENTION_MAPS], "rows": _attention(metrics)})
    return found


def _attention(metrics: list[dict[str, Any]]) -> list[list[str]]:
    """The metrics of a round as a table: a row each, a column for the map and each baseline."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for metric in metrics:
        name, _, of = metric["name"].partition(":")
        rows.setdefault(name, {})[of or ATTENTION_MAPS[0]] = metric
    return [
        [name, str(of[ATTENTION_MAPS[0]]["n"]), *(_cell(of.get(which)) for which in ATTENTION_MAPS)]
        for name, of in rows.items()
    ]


def _cell(metric: dict[str, Any] | None) -> str:
    if metric is None:
        return "-"
    if metric["low"] is None:
        return f"{metric['value']:.2f}"
    return f"{metric['value']:.2f} [{metric['low']:.2f}, {metric['high']:.2f}]"
