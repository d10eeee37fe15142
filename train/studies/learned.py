"""What the objectives of Table 5 learned of what each asks for, from the curves of its runs.

An objective that is weak on a task may be weak, or not have begun: the page shows which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

from train.studies.catalogue import CORPORA, STUDIES

STUDY = "table5"
_FIRST, _LAST = slice(2), slice(-2, None)
"""Bins of a curve (`train.studies.curves.BINS`) that its two means are of."""


@dataclass(frozen=True)
class Ask:
    """A thing that an objective wants found."""

    row: str
    metric: str
    """Of training, a share of right answers."""
    finds: str
    chance: str
    """By guessing, of 16 clips a step; empty where it depends on the length of the clips."""


ASKS = (
    Ask("MoCo", "queue_accuracy", "its clip's key before those of the queue", "0.004 when full"),
    Ask("MoCo", "views_r1", "the other view of its clip", "0.06"),
    Ask("CPC", "cpc_accuracy", "the right future", ""),
    Ask("CPC", "cpc_within_accuracy", "which future of its clip it is", "0.17; GRID 0.14"),
    Ask("DPC", "dpc_accuracy", "the right future", ""),
    Ask("DPC", "dpc_within_accuracy", "which future of its clip it is", "0.02; place known 0.33"),
    Ask("VDIM", "g2l_r1", "the clip that cells are from", "0.06"),
    Ask("AVTS", "avc_accuracy", "whether sound and pictures are of one clip", "0.50"),
    Ask("AVTS", "avts_accuracy", "whether they are of one time", "0.50"),
    Ask("AVSlowFast", "avc_accuracy", "whether sound and pictures are of one clip", "0.50"),
    Ask("AVSlowFast", "avts_accuracy", "whether they are of one time", "0.50"),
    Ask("AVSlowFast", "rotation_accuracy", "by which quarter pictures are turned", "0.25"),
    Ask("Ours", "a2v_r1", "a sound's pictures, by L_g", "0.06"),
    Ask("Ours", "a2v_r1_sync", "a sound's pictures, by L_l", "0.06"),
)


def table(studies: Mapping[str, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: how often each is right at first and at last, a number a seed."""
    curves = studies.get(STUDY, {}).get("curves", {})
    corpora = [name for name in CORPORA if any(run.startswith(f"{name}/") for run in curves)]
    heads = ["objective", "finds", "by chance", *(f"{name}: at first; at last" for name in corpora)]
    runs = {row.label: row.run for row in STUDIES[STUDY].rows}
    rows = [
        [ask.row, ask.finds, ask.chance,
         *(_ends(curves, f"{name}/{runs[ask.row]}-", ask.metric) for name in corpora)]
        for ask in ASKS
    ]  # fmt: skip
    return heads, rows


def _ends(curves: Mapping[str, Mapping[str, list[float]]], run: str, metric: str) -> str:
    """First and last means of a metric, over all seeds of a run."""
    seeds = sorted(name for name in curves if name.startswith(run) and name[len(run) :].isdigit())
    known = [curves[name][metric] for name in seeds if metric in curves[name]]
    ends = [[f"{mean(one[part]):.2f}" for one in known] for part in (_FIRST, _LAST)]
    return "; ".join(", ".join(end) for end in ends if end)
