"""`demo`: a small corpus rendered here, with the truth built in.

A few dozen clips of 11 s that need no download: talking heads, sounding objects, lamps that flash
and beep, over many containers and frame rates, and some broken files for the ledger. What is true
of each (boxes, onsets, mouth opening, words) goes into the column `extra`. The table of clips is
`manifests.render.clips`; files that are there and complete are kept.

    python -m manifests build --dataset demo --root data/raw/demo
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions

if TYPE_CHECKING:
    from manifests.render.clips import Clip

LICENCE = "generated here: free to use; the portrait is NASA's (Eileen Collins), public domain"
TRUTH_SUFFIX = ".json"
"""Beside each clip lies its truth; it is written last and marks the clip as complete."""


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
    from manifests.render.clips import CLIPS

    chosen = [clip for clip in CLIPS
              if (kinds is None or clip.kind in kinds)
              and (limit is None or clip.number < limit)]  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    missing = [clip for clip in chosen if _complete(root, clip) is None]
    if missing:
        sys.stderr.write(f"rendering {len(missing)} clips into {root} (about a minute)\n")
    # Large pictures take longest; starting with them keeps all workers busy to the end.
    missing.sort(key=lambda clip: -clip.size[0] * clip.size[1] * clip.seconds * clip.encoding.fps)
    for _ in _progress(_render_all(missing, root, workers), len(missing)):
        pass
    return [facts for clip in chosen if (facts := _complete(root, clip)) is not None]


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


def _render_all(clips: list[Clip], root: Path, workers: int | None) -> Iterator[None]:
    """Render clips in a pool of processes; one at a time here if that is all there is."""
    workers = min(len(clips), workers or len(os.sched_getaffinity(0)))
    if workers <= 1:
        for clip in clips:
            _render(clip, root)
            yield
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_render, clip, root) for clip in clips]):
            done.result()
            yield


def _render(clip: Clip, root: Path) -> None:
    """Render one clip, then write its truth beside it."""
    import cv2

    from manifests.render.clips import describe, render

    cv2.setNumThreads(1)  # the processes share the machine already
    path = _truth_path(root, clip)
    path.unlink(missing_ok=True)
    facts = {**render(clip, root), "clip": describe(clip)}
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
    part.replace(path)


def _complete(root: Path, clip: Clip) -> dict[str, Any] | None:
    """The facts of a clip that is there, was made from this description, and has its size."""
    from manifests.render.clips import describe

    path = _truth_path(root, clip)
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        size = (root / facts["uri"]).stat().st_size
    except (FileNotFoundError, ValueError, KeyError):
        return None
    same = facts.get("clip") == json.loads(json.dumps(describe(clip)))
    return facts if same and size == facts["bytes"] else None


def _truth_path(root: Path, clip: Clip) -> Path:
    return root / f"{clip.name}{TRUTH_SUFFIX}"


def _progress(steps: Iterator[None], total: int) -> Iterator[None]:
    """A bar on a terminal, silence elsewhere."""
    if not total:
        return
    from tqdm import tqdm

    yield from tqdm(
        steps,
        "rendering demo clips",
        total,
        unit="clip",
        disable=not sys.stderr.isatty(),
    )


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
)
"""The registry's entry."""
