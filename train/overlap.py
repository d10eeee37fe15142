"""Held-out clips that are trained on, too: counted before a run begins.

Splits need not be disjoint: `--val-split train`, one of UCF101's three splits against another, a
fold of ESC-50 inside all others. A clip in both makes every held-out number, and the choice of
`best`, a matter of memory. A group in both (a speaker, a source video; the column of
samples.parquet) makes it a number about known groups, which may be what is wanted: GRID has one
speaker.
"""

import logging

import pyarrow as pa
import pyarrow.compute as pc

from train.errors import UsageError
from train.mixture import Mixture

log = logging.getLogger(__name__)

SHOWN = 3


def refuse_overlap(training: Mixture, held_out: Mixture, allowed: bool) -> None:
    """Look for clips, then groups, that are in both.

    Args:
        training: what is trained on.
        held_out: what is measured.
        allowed: clips in both are only warned of.

    Raises:
        UsageError: there are some, and they are not allowed; says how many.
    """
    keys = held_out.keys()
    known = keys.filter(pc.is_in(keys, value_set=training.keys()))
    if len(known):
        said = (
            f"{len(known)} of {len(keys)} held-out clips (split {held_out.split}) are trained on, "
            f"too (split {training.split}): {_some(known)}"
        )
        if not allowed:
            raise UsageError(
                f"{said}; their numbers, and the choice of `best`, would be of clips the model "
                "has learnt by heart. Name another --val-split, leave measuring out with "
                "--val-every 0, or say --allow-overlap"
            )
        log.warning("%s; held-out numbers and `best` are those of known clips", said)
        return
    groups = held_out.groups()
    known = groups.filter(pc.is_in(groups, value_set=training.groups()))
    if len(known):
        log.warning(
            "%d of %d held-out clips are of groups (speakers, source videos) that are trained on, "
            "too: %s; what is measured is how well new clips of known groups are understood",
            len(known), len(groups), _some(pc.unique(known)),
        )  # fmt: skip


def _some(values: pa.ChunkedArray | pa.Array) -> str:
    shown = ", ".join(values.slice(0, SHOWN).to_pylist())
    return shown + (", ..." if len(values) > SHOWN else "")
