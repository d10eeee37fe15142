"""Kinetics-Sounds: the classes of Kinetics-400 that are seen and heard; a view without files.

Two lists of classes are in use: 32 (22,408 usable training clips) and 31, the same without
'strumming guitar'. The original 34 names are older than the published Kinetics-400; two of them
have no counterpart there. Keys, groups and splits are those of Kinetics-400 (`k400:train`,
`k400:val`), so that a clip keeps its identity; class numbers are positions in the sorted list.

ROOT is a Kinetics-400 folder (by default the one of `kinetics400`); see manifests/kinetics.py.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from manifests import kinetics
from manifests.columns import view
from manifests.dataset import Dataset, Report, ScanOptions

_ONLY_IN_32 = "strumming guitar"
_INSTRUMENTS = (
    *("accordion", "bagpipes", "bass guitar", "clarinet", "drums", "guitar", "harmonica"),
    *("keyboard", "organ", "piano", "saxophone", "trombone", "trumpet", "violin", "xylophone"),
)
CLASSES_32 = sorted(
    [
        *(f"playing {instrument}" for instrument in _INSTRUMENTS),
        *("blowing nose", "blowing out candles", "bowling", "chopping wood"),
        *("dribbling basketball", "laughing", "mowing lawn", "ripping paper"),
        *("shoveling snow", "shuffling cards", "singing", "stomping grapes"),
        *(_ONLY_IN_32, "tap dancing", "tapping guitar", "tapping pen", "tickling"),
    ]
)
"""The list of 32 classes, by their Kinetics-400 names."""


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Filter a Kinetics-400 scan of `root` by class and number the classes again."""
    whole, report = kinetics.KINETICS400.scan(root, options)
    report.dataset = "kinetics_sounds"
    vocabulary = [c for c in CLASSES_32 if options.label_set == 32 or c != _ONLY_IN_32]
    known = set(report.vocabulary)
    # the numbers of a subset are right even where Kinetics' own are not
    report.notes = [note for note in report.notes if "class numbers" not in note]
    report.notes.append(
        f"{len(whole):,} rows of Kinetics-400 were looked through; counts of files are theirs."
    )
    if absent := [name for name in vocabulary if name not in known]:
        report.notes.append(f"Classes that this Kinetics-400 lacks: {', '.join(absent)}.")
    report.vocabulary = vocabulary
    return view(whole, "kinetics_sounds", vocabulary), report


KINETICS_SOUNDS = Dataset(
    name="kinetics_sounds",
    title="Kinetics-Sounds",
    what="The 32 (or 31) classes of Kinetics-400 whose actions are seen and heard.",
    scale="about 22,400 training clips, 62 hours",
    licence=kinetics.LICENCE,
    layouts="a Kinetics-400 folder:\n" + kinetics.KINETICS400.layouts,
    scan=scan,
    annotations=kinetics.KINETICS400.annotations,
    options=("annotations", "label_set"),
    raw="kinetics400",
)
"""The registry's entry."""
