"""ESC-10: ten classes of ESC-50; a view without files of its own.

ROOT is an ESC-50 folder (by default that of `esc50`), or ESC-10 as first published, whose clips
are the same ones as Ogg files. Keys and groups are those of ESC-50, so that a clip keeps its
identity; class numbers follow the folders 001 to 010 of ESC-10, folds are `esc10:fold1` to
`esc10:fold5`. See manifests/esc50.py.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from manifests import esc50
from manifests.columns import replaced, view
from manifests.dataset import Dataset, Report, ScanOptions

LICENCE = "CC BY 3.0; name K. J. Piczak, 2015"


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Filter an ESC-50 scan of `root` by class and number the classes again."""
    whole, report = esc50.ESC50.scan(root, options)
    report.dataset, report.licence, report.vocabulary = "esc10", LICENCE, esc50.ESC10
    if report.annotations:
        report.notes.append(f"{len(whole):,} rows of ESC-50; counts of other files are theirs.")
    rows = view(whole, "esc10", esc50.ESC10)
    folds = [[s for s in splits if s.startswith("esc10:")] for splits in rows["splits"].to_pylist()]
    return replaced(rows, "splits", folds), report


ESC10 = Dataset(
    name="esc10",
    title="ESC-10",
    what="The ten classes of ESC-50 that are easiest to tell apart, 40 clips of each.",
    scale="400 clips of 5 s, half an hour",
    licence=LICENCE,
    layouts="an ESC-50 folder, or ESC-10 as first published:\n" + esc50.ESC50.layouts,
    scan=scan,
    annotations=esc50.ESC50.annotations,
    raw="esc50",
    download=esc50.ESC50.download,
    official={f"esc10:fold{n}": 80 for n in esc50.FOLDS},
)
"""The registry's entry."""
