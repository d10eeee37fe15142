"""DFDC preview: the 5,000 clips that came before the Deepfake Detection Challenge.

Where from: Meta, ai.meta.com/datasets/dfdc, after accepting the terms: dfdc_preview_set.zip.

Layout: `dataset.json` beside `method_A/`, `method_B/` and `original_videos/`. It is an object of
`"method_B/1260311/1260311_C/1255229_1260311_C_001.mp4": {"label": "fake", "set": "train",
"augmentations": [], "target_id": "1260311", "swapped_id": "1255229"}`. The set is the split. Clips
with one target actor share a group. The class number of FAKE is 1, as for `dfdc`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.annotations import SPLIT_WORDS
from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.dfdc import CLASSES, LICENCE
from manifests.errors import UsageError
from manifests.keys import KEY_PATTERN, folder_key
from manifests.listing import from_uri, to_uri

_FACTS = ("target_id", "swapped_id", "source_video", "augmentations")
_Facts = dict[str, dict[str, Any]]


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Join dataset.json with the files below `root`."""
    listing = options.walk(root)
    report = Report("dfdc_preview", LICENCE, vocabulary=CLASSES)
    report.ignored.update(listing.ignored)
    report.ignored.update(listing.other_kinds())
    sizes = {entry.path: entry.bytes for entry in listing.media()}
    facts = _dataset(root, options, report)
    rows = [_row(path, about, sizes, report) for path, about in facts.items()]
    report.files_without_row = len(sizes.keys() - facts.keys())
    _note_borrowed(facts, report)
    return table(rows), report


def _dataset(root: Path, options: ScanOptions, report: Report) -> _Facts:
    """Return what dataset.json says, by the clip's path below the root."""
    places = [
        (root / from_uri(entry.path), os.path.dirname(entry.path))
        for entry in options.walk(root).side
        if os.path.basename(entry.path).lower() == "dataset.json"
    ]
    if options.annotations is not None:
        named = options.annotations
        path = named / "dataset.json" if named.is_dir() else named
        if not path.is_file():
            raise UsageError(f"--annotations {named} holds no dataset.json; name the file itself.")
        places = [(path, _folder(options, root))]
    facts: _Facts = {}
    for path, folder in places:
        before = len(facts)
        clips = {f"{folder}/{name}" if folder else name: about for name, about in _read(path)}
        facts = {**clips, **facts}
        report.duplicate_rows += before + len(clips) - len(facts)
        report.annotations.append(str(path))
    return facts


def _folder(options: ScanOptions, root: Path) -> str:
    """Return the folder below the root that holds the clips: that of `original_videos`."""
    for entry in options.walk(root).media():
        if found := re.fullmatch(r"(?:(.*)/)?(?:original_videos|method_[^/]+)/.*", entry.path):
            return found[1] or ""
    return ""


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}); download the set again.") from error
    if not isinstance(content, dict):
        raise UsageError(f'{path} holds no JSON object; expected {{"PATH.mp4": {{...}}, ...}}.')
    return ((name, about) for name, about in content.items() if isinstance(about, dict))


def _row(path: str, about: dict[str, Any], sizes: dict[str, int | None], report: Report) -> Row:
    label = str(about.get("label", "")).upper()
    if label not in CLASSES:
        report.unknown_labels[label or "(none)"] += 1
    split = SPLIT_WORDS.get(str(about.get("set", "")).lower())
    name = _name(path)
    return {
        "dataset": "dfdc_preview",
        "key": f"dfdcp/{name}",
        "source_id": f"dfdcp:{name}",
        "group_id": f"dfdcp:{_target(path, about)}",
        "uri": to_uri(path),
        "splits": [] if split is None else [f"dfdcp:{split}"],
        "labels": [CLASSES.index(label)] if label in CLASSES else [],
        "label_names": [label] if label in CLASSES else [],
        "expect": {"video": True, "audio": None, "fps": None, "duration_s": None},
        "extra": extra(
            method=_inner(path).split("/")[0], **{fact: about.get(fact) for fact in _FACTS}
        ),
        "anchored": True,
        "bytes": sizes.get(path),
    }


def _inner(path: str) -> str:
    """Return a path from its method's folder on."""
    found = re.search(r"(?:^|/)((?:original_videos|method_[^/]+)/.*)", path)
    return found[1] if found else path


def _name(path: str) -> str:
    """Return a clip's name for keys: the path without extension where that is a key."""
    name = os.path.splitext(_inner(path))[0]
    return name if re.fullmatch(KEY_PATTERN, name) else folder_key(_inner(path))


def _target(path: str, about: dict[str, Any]) -> str:
    """Return the actor who is seen: by dataset.json, else by the folder of the method."""
    parts = _inner(path).split("/")
    return str(about.get("target_id") or (parts[1] if len(parts) > 2 else _name(path)))


def _note_borrowed(facts: _Facts, report: Report) -> None:
    """Count the faces that cross the split: a test fake's swapped actor may be in train."""
    actors: dict[str | None, set[str]] = {"train": set(), "test": set()}
    for path, about in facts.items():
        seen = actors.setdefault(SPLIT_WORDS.get(str(about.get("set", "")).lower()), set())
        seen.update(str(about[k]) for k in ("target_id", "swapped_id") if about.get(k))
        seen.add(_target(path, about))
    shared = len(actors["train"] & actors["test"])
    report.notes.append(f"{shared:,} actors (target or swapped face) are in train and in test.")


DFDC_PREVIEW = Dataset(
    name="dfdc_preview",
    title="DFDC preview",
    what="The first 5,000 real and face-swapped clips of the Deepfake Detection Challenge.",
    scale="about 5,200 clips, most of 15 s",
    licence=LICENCE,
    download=(
        "Accept the terms at ai.meta.com/datasets/dfdc, download dfdc_preview_set.zip and unpack\n"
        "it: it holds dataset.json beside the folders of the methods."
    ),
    layouts=(
        "ROOT/dfdc_preview_set/{method_A,method_B,original_videos}/... + dataset.json\n"
        "ROOT/{method_A,method_B,original_videos}/... + dataset.json"
    ),
    scan=scan,
    annotations="dataset.json beside the folders, or named by --annotations",
)
"""The registry's entry."""
