"""The papers' tables with our results beside them.

    results = find_results(Path("runs"))            # every RUN/eval/NAME/result.json
    tables = filled(results)                        # placed, with foot notes
    others(results)                                 # what no table has a place for

A result is placed by what it says of itself: task, protocol, metric, modality (COLUMNS). Where it
looked at something else than the column's standard (whole frames, attention pooling, features of
one path) it gets a row of its own that says so. Where nothing was run a cell stays empty.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.errors import UsageError
from train.papers import TABLES, Column, Table

RESULT = "result.json"
OURS = "GLAV"
CROPPED = {"lrw": "lip", "lrs2": "lip", "lrs3": "lip", "grid": "lip",
           "dfdc_mds": "face"}  # fmt: skip
"""Tasks that look at crops; on whole frames they are another row (GLCM Table 8)."""
MODALITY = {"esc50": "A", "dcase2013": "A", "ave": "V+A", "ave_weak": "V+A", "avsync": "V+A"}
"""What tasks look at by default, where it is not V."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Which result belongs in a column."""

    tasks: tuple[str, ...]
    metric: str
    protocols: tuple[str, ...] = ()
    """Empty: any."""
    dataset: str = ""
    """Where a task is run on several."""
    modality: str = ""
    """Empty: any, and a row each."""
    round: str = ""
    """The value of this round; empty: that over all rounds."""

    def takes(self, result: Result) -> bool:
        """Whether the result is one of these."""
        return (
            result["task"] in self.tasks
            and self.measured(result) is not None
            and (not self.protocols or result["protocol"] in self.protocols)
            and (not self.dataset or result["dataset"] == self.dataset)
            and (not self.modality or _setting(result, "modality") == self.modality)
        )

    def measured(self, result: Result) -> dict[str, Any] | None:
        """The metric, if the result has it."""
        parts = result.get("rounds") or [] if self.round else [result]
        for part in parts:
            if not self.round or part["name"].lower() == self.round:
                return next((m for m in part["metrics"] if m["name"] == self.metric), None)
        return None


def _tuned(task: str, metric: str = "top1", modality: str = "") -> Wanted:
    return Wanted((task,), metric, ("finetune",), modality=modality)


def _linear(task: str) -> Wanted:
    return Wanted((task,), "top1", ("linear",))


def _retrieved(dataset: str, k: int) -> Wanted:
    return Wanted(("retrieval",), f"R@{k}", dataset=dataset)


UCF, HMDB = _tuned("ucf101"), _tuned("hmdb51")
FINGERPRINT = Wanted(("fingerprint",), "instance_R@1", round="c")
"""AugVGG-C, all kinds of manipulation together: the round `c`."""
COLUMNS: dict[str, Wanted] = {
    "LRS2_WER": _tuned("lrs2", "wer"),
    "LRS2_WER_FT": _tuned("lrs2", "wer"),
    "LRW_top1": _tuned("lrw"),
    "LRW_FT": _tuned("lrw"),
    "DFDC_AUC": _tuned("dfdc_mds", "auc_video", "V"),
    "DFDC_AUC_V": _tuned("dfdc_mds", "auc_video", "V"),
    "DFDC_AUC_VA": _tuned("dfdc_mds", "auc_video", "V+A"),
    "DFDC_AUC_FT": _tuned("dfdc_mds", "auc_video", "V"),
    "AVE_full_acc": _tuned("ave", "segment_accuracy"),
    "AVE_weak_acc": _tuned("ave_weak", "segment_accuracy"),
    "UCF101_top1": UCF,
    "UCF101_FT": UCF,
    "UCF101_LN": _linear("ucf101"),
    "UCF101_Lin": _linear("ucf101"),
    "HMDB51_top1": HMDB,
    "HMDB51_FT": HMDB,
    "HMDB51_LN": _linear("hmdb51"),
    "HMDB51_Lin": _linear("hmdb51"),
    "K400_FT": _tuned("kinetics400"),
    "K400_LN": _linear("kinetics400"),
    "video_top1": _linear("kinetics400"),
    "ESC50_top1": _tuned("esc50"),
    "ESC50_FT": _tuned("esc50"),
    "ESC50_LN": _linear("esc50"),
    "ESC50_linear": _linear("esc50"),
    "ESC50_Lin": _linear("esc50"),
    "DCASE_top1": Wanted(("dcase2013",), "top1", ("svm",)),
    **{f"{name}_R{k}": _retrieved(name.lower(), k) for name in ("UCF101", "HMDB51")
       for k in (1, 5, 20)},
    **{f"{name}_1NN": _retrieved(name.lower(), 1) for name in ("UCF101", "HMDB51", "ESC50")},
    "AugVGG-C_R1": FINGERPRINT,
    "VGGSound_top1": _linear("vggsound"),
    "K600_top1": _linear("kinetics600"),
    "AVS_acc": Wanted(("avsync",), "avs_accuracy@2.0-5.8s"),
}  # fmt: skip
"""By the columns' names; what is not here no task of ours measures. The papers' DFDC is cut by the
lists of MDS: the official test part is another set, and none of theirs."""
OF_TABLE: dict[tuple[str, str], dict[str, Wanted]] = {
    ("glcm", "2"): {"DFDC_AUC": _tuned("dfdc_mds", "auc_video")},
    ("avid", "4"): {"ESC50_top1": Wanted(("esc50",), "top1", ("svm",))},
}
"""Where a table means something else by the same name."""


# --- results ----------------------------------------------------------------------------------


def find_results(*roots: Path) -> list[Result]:
    """Every result below some folders, by path.

    Raises:
        UsageError: one cannot be read, or lacks a field.
    """
    paths = sorted({path for root in roots for path in root.glob(f"**/eval/**/{RESULT}")})
    return [read_result(path) for path in paths]


def read_result(path: Path) -> Result:
    """One evaluation's result.

    Raises:
        UsageError: it cannot be read, or lacks a field.
    """
    try:
        found: Result = json.loads(path.read_bytes())
        check(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is no result of `train eval` ({type(error).__name__}: {error}); run the "
            "evaluation again or move the file away"
        ) from error
    return found


def check(result: Result) -> None:
    """Raise KeyError or TypeError where a field is missing that the tables need."""
    for name in ("task", "dataset", "protocol", "n_scored", "n_expected", "coverage", "checkpoint"):
        result[name]
    for metric in result["metrics"]:
        for name in ("name", "value", "low", "high"):
            metric[name]


# --- placing ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A number of ours."""

    text: str
    notes: tuple[int, ...] = ()
    """Numbers of its foot notes."""


@dataclass
class Row:
    """One of ours: its keys, and a cell a column."""

    keys: tuple[str, ...]
    cells: dict[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class Filled:
    """A table of a paper with our rows."""

    table: Table
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """Foot notes of our cells, the first is number 1."""


def filled(results: Sequence[Result]) -> list[Filled]:
    """Every table one of whose columns a task of ours measures, with the results that belong."""
    return [_filled(table, results) for table in TABLES if _wanted(table)]


def others(results: Sequence[Result]) -> list[Result]:
    """Those that have no place in any table."""
    wanted = [one for table in TABLES for one in _wanted(table).values()]
    return [result for result in results if not any(one.takes(result) for one in wanted)]


def _wanted(table: Table) -> dict[str, Wanted]:
    names = {column.name for column in table.columns}
    known = {**COLUMNS, **OF_TABLE.get(table.key, {})}
    return {name: wanted for name, wanted in known.items() if name in names}


def _filled(table: Table, results: Sequence[Result]) -> Filled:
    rows: list[Row] = []
    notes: dict[str, int] = {}
    for column in table.columns:
        wanted = _wanted(table).get(column.name)
        for result in results if wanted else ():
            if wanted and wanted.takes(result):
                row = _row_for(rows, column.name, _keys(table, wanted, result))
                row.cells[column.name] = _cell(result, wanted, column, notes)
    return Filled(table, tuple(rows), tuple(notes))


def _row_for(rows: list[Row], column: str, keys: tuple[str, ...]) -> Row:
    """The row with these keys whose cell is free; a second result of a kind begins another."""
    for row in rows:
        if row.keys == keys and column not in row.cells:
            return row
    rows.append(Row(keys))
    return rows[-1]


def _keys(table: Table, wanted: Wanted, result: Result) -> tuple[str, ...]:
    """What our row is, in the cells that say it in the paper; empty where it is not recorded."""
    model = result.get("model") or {}
    known = {
        "backbone": str(model.get("preset") or ""),
        "network": str(model.get("preset") or ""),
        "pretrain": "" if result["checkpoint"] else "none",
        "modality": _setting(result, "modality"),
    }
    label = ", ".join([run_name(result), *_otherwise(table, wanted, result)])
    return (label, *(known.get(key, "") for key in table.keys[1:]))


def _otherwise(table: Table, wanted: Wanted, result: Result) -> list[str]:
    """What of the settings makes a row of its own."""
    said = []
    if _setting(result, "pooling") == "full_attention":
        said.append("attention")
    elif result["task"] in CROPPED and _setting(result, "pictures") == "frames":
        said.append("full frame")
    if _setting(result, "features") in ("g", "l"):
        said.append(f"features {_setting(result, 'features')}")
    if layer := _setting(result, "layer"):
        said.append(f"layer {layer}")
    if (cells := (result.get("settings") or {}).get("cells")) and tuple(cells) != (1, 1, 1):
        said.append(f"features in {'x'.join(map(str, cells))} cells")
    said += encoder_rate(result)
    modality = _setting(result, "modality")
    usual = "" if "modalities" in table.keys else MODALITY.get(result["task"], "V")
    if modality not in ("", usual) and not wanted.modality and "modality" not in table.keys:
        said.append(modality)
    return said


def run_name(result: Result) -> str:
    """Method and run of the checkpoint, or that there was none."""
    model = result.get("model") or {}
    checkpoint = result["checkpoint"]
    if not checkpoint:
        return " ".join([OURS, "scratch", str(model.get("preset") or "")]).strip()
    path = Path(checkpoint["path"])
    run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    method = checkpoint.get("method") or model.get("method") or ""
    return " ".join(part for part in (OURS, str(method), f"({run.name or path.name})") if part)


def _setting(result: Result, name: str) -> str:
    return str((result.get("settings") or {}).get(name) or "")


# --- numbers and notes ------------------------------------------------------------------------


def _cell(result: Result, wanted: Wanted, column: Column, notes: dict[str, int]) -> Cell:
    number = notes.setdefault(note_of(result), len(notes) + 1)
    return Cell(shown(wanted.measured(result) or {}, column.unit), (number,))


def shown(metric: dict[str, Any], unit: str = "percent") -> str:
    """Value and 95 % interval; in percent if asked for and the metric is a fraction."""
    factor = 100 if unit == "percent" and metric.get("unit", "fraction") == "fraction" else 1
    digits = 1 if factor == 100 else 3
    value, low, high = (metric.get(name) for name in ("value", "low", "high"))
    if value is None:
        return "undefined"
    text = f"{value * factor:.{digits}f}"
    if low is None or high is None:
        return f"{text} [no interval]"
    return f"{text} [{low * factor:.{digits}f}, {high * factor:.{digits}f}]"


def note_of(result: Result) -> str:
    """How it was run, and what keeps it from being the papers' protocol."""
    settings = result.get("settings") or {}
    windows = settings.get("clips")
    facts = [
        f"{result['task']}, {result['protocol']}",
        *encoder_rate(result),
        f"{windows or 'tiled'} windows x {settings.get('crops', 1)} crops" if settings else "",
        f"{result['n_scored']} of {result['n_expected']} scored (coverage {coverage(result)})",
        *_differences(result),
    ]
    return "; ".join(fact for fact in facts if fact)


def encoder_rate(result: Result) -> list[str]:
    """The encoders' learning rate, where it was given, of what was fine-tuned."""
    rate = (result.get("config") or {}).get("lr_encoder")
    tuned = result["protocol"] == "finetune" and rate is not None
    return [f"encoder at a rate of {rate:g}"] if tuned else []


def _differences(result: Result) -> list[str]:
    """What is not as in the papers, as far as a result knows it."""
    found = [str(note) for note in result.get("notes") or []]
    if result["coverage"] < 1 and not any("--allow-missing" in note for note in found):
        found.append("NOT ALL of the benchmark's test set")
    checkpoint = result["checkpoint"]
    if checkpoint:
        sha = str(checkpoint.get("sha256") or "")[:8]
        found.append(
            f"pretraining: checkpoint {sha or '?'}, step {checkpoint.get('step', '?')}, whose run "
            "says on which data; the papers' rows name theirs"
        )
    else:
        found.append("no pretraining")
    return found


def coverage(result: Result) -> str:
    """Rounded down: what is not whole is never 100 %."""
    return f"{math.floor(1000 * result['coverage']) / 10:g} %"
