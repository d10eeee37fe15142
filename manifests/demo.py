"""`demo`: a small corpus rendered here, with the truth built in.

A few dozen clips of 11 s that need no download: talking heads, sounding objects, lamps that flash
and beep, over many containers and frame rates, and some broken files for the ledger. What is true
of each (boxes, onsets, mouth opening, words) goes into the column `extra`. The table of clips is
`manifests.render.clips`; files that are there and complete are kept.

    python -m manifests build --dataset demo --root data/raw/demo
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions

if TYPE_CHECKING:
    from manifests.render.clips import Clip

LICENCE = "generated here: free to use; the portrait is NASA's (Eileen Collins), public domain"


def generate(
    root: Path,
    *,
    workers: int | None = None,
    kinds: Sequence[str] | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Render what is missing of the corpus.

    Args:
        root: folder of the corpus; it is made.
        workers: processes to render in; None: as many as there are CPUs for us.
        kinds: `head`, `ball`, `bell`, `drum`, `string`, `flash`, `broken`; None: all.
        limit: only so many clips of each kind.

    Returns:
        Facts of each clip in the table's order: `uri`, `bytes`, `words`, `truth`.
    """
    from manifests.render.clips import CLIPS, describe, render
    from manifests.render.kept import Renderer

    chosen = [clip for clip in CLIPS
              if (kinds is None or clip.kind in kinds)
              and (limit is None or clip.number < limit)]  # fmt: skip
    return Renderer(render, describe).kept(root, chosen, workers)


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Make one row per clip, rendering the clips that are not there."""
    from manifests.render.clips import CLIPS, LABELS

    del options
    facts = generate(root)
    report = Report("demo", LICENCE, vocabulary=list(LABELS))
    rows = [_row(clip, about, LABELS) for clip, about in zip(CLIPS, facts, strict=True)]
    return table(rows), report


def _row(clip: Clip, about: dict[str, Any], labels: tuple[str, ...]) -> Row:
    """The manifest row of a clip."""
    known = clip.kind in labels
    words = about["words"]
    return {
        "dataset": "demo",
        "key": f"demo/{clip.name}",
        "source_id": f"demo:{clip.name}",
        "group_id": f"demo:{clip.who}",
        "uri": about["uri"],
        "splits": [f"demo:{clip.split}"],
        "labels": [labels.index(clip.kind)] if known else [],
        "label_names": [clip.kind] if known else [],
        "transcript": " ".join(word["w"] for word in words) or None,
        "words": words,
        "extra": extra(truth=about["truth"], fault=clip.fault or None),
        "bytes": about["bytes"],
    }


DEMO = Dataset(
    name="demo",
    title="the demo corpus",
    what="Talking heads, sounding objects and flashing lamps rendered here, with known truth.",
    scale="39 clips, most of 11 s, 22 MB, made in under a minute",
    licence=LICENCE,
    layouts="ROOT/KIND/NUMBER.mp4 and so on; what is missing is rendered, nothing is downloaded",
    scan=scan,
    options=(),
    rescan_always=True,
    generated=True,
)
"""The registry's entry."""
