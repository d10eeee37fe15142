"""DFDC: ten-second clips of people, some with a swapped face or voice; is it real or fake?

Where from: Meta's Deepfake Detection Challenge, ai.meta.com/datasets/dfdc or Kaggle, after signing
in and accepting the terms. 119,154 training clips (19,154 real, 100,000 fake) in 50 parts, 4,000
public validation and 10,000 test clips.

Layout: `dfdc_train_part_3/ID.mp4` (the number may be padded) with `metadata.json`, an object of
`"ID.mp4": {"label": "FAKE", "split": "train", "original": "OTHER.mp4"}`; REAL ones have no original
or null. Also `train_sample_videos/` (400 clips of the parts: left out where the part's row is
there), `test_videos/` (unlabelled), `validation/` and `test/` with `labels.csv` or a
`metadata.json` that says `is_fake`. Files are joined by their id wherever they lie, so that the
tree `{train,test}/{real,fake}/ID.mp4` works too. Ids are ten letters and taken as unique.

Splits: `dfdc:train`, `dfdc:val`, `dfdc:test` are the official ones. `dfdc:fold0` to `dfdc:fold4`
share the training clips by part (its number modulo 5), so that a fake and its original are always
in one fold; clips of no part go by a hash of their original. `mds:train` and `mds:test` are there
if the lists are (manifests/mds.py). The class number of FAKE is 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from manifests import mds
from manifests.annotations import SPLIT_WORDS, columns_of, csv_rows, find, refuse_unread
from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.errors import UsageError
from manifests.listing import Entry, Listing, from_uri, to_uri
from manifests.mds import FAKE, REAL, Known

LICENCE = (
    "Meta's DFDC agreement or the Kaggle competition's rules: research, with consent of the actors "
    "for that; clips may not be passed on (as far as we know)"
)
CLASSES = [REAL, FAKE]
"""Class names by number."""
FOLDS = 5
_OFFICIAL = {"dfdc:train": 119_154, "dfdc:val": 4000, "dfdc:test": 10_000}
_PROTOCOLS = [
    ["dfdc:train", "dfdc:val", "dfdc:test"],
    [f"dfdc:fold{n}" for n in range(FOLDS)],
    ["mds:train", "mds:test"],
]
_CLIP_SECONDS = 10.0
_ID = re.compile(r"[a-z]{10}")
_PART = re.compile(r"(?P<before>.*dfdc_train_part_)(?P<number>\d{1,2})")
_SAMPLE, _UNLABELLED = "sample", "test_videos"
_COLUMNS = {
    "name": ("filename", "file", "name", "video", "uri"),
    "label": ("label", "is_fake", "class"),
    "original": ("original",),
}
_LABELS = {"real": REAL, "0": REAL, "false": REAL, "fake": FAKE, "1": FAKE, "true": FAKE}


class _Clip(NamedTuple):
    """One clip, by its metadata or by its file alone."""

    id: str
    place: str
    """Two digits of the part, `sample`, `val`, `test`, `test_videos`, or nothing."""
    label: str | None
    original: str | None
    split: str | None
    """What the metadata says, for clips without a place."""
    folder: str
    """Where it lies or should."""

    @property
    def group(self) -> str:
        """Id of the original."""
        return self.original or self.id


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Join the metadata with the files below `root`, by id."""
    listing = options.walk(root)
    report = Report("dfdc", LICENCE, vocabulary=CLASSES, protocols=_PROTOCOLS)
    report.ignored.update(listing.ignored)
    report.ignored.update(listing.other_kinds())
    files = _files(listing, report)
    given = find(root, options, (".txt", ".json", ".csv"))
    clips = _metadata(root, listing, given if options.annotations is not None else [], report)
    _add_files(clips, files, root, report)
    lists = mds.read([path for path in given if path.suffix.lower() == ".txt"], report)
    refuse_unread(options, report, "metadata.json, labels.csv or the lists of the MDS split")
    known = {clip.id: Known(clip.label, clip.original) for clip in clips.values()}
    members = mds.members(lists, known, report) if lists else {}
    _add_listed(clips, lists)
    rows = list(_rows(clips, files, members, report))
    _note_classes(rows, report)
    return table(rows), report


def _files(listing: Listing, report: Report) -> dict[str, list[Entry]]:
    """Return the media files by id."""
    files: dict[str, list[Entry]] = {}
    for entry in listing.media():
        clip = os.path.splitext(os.path.basename(entry.path))[0]
        if _ID.fullmatch(clip) is None:
            report.ignored["media files whose name is not ten letters"] += 1
        else:
            files.setdefault(clip, []).append(entry)
    return files


def _metadata(root: Path, listing: Listing, given: list[Path], report: Report) -> dict[str, _Clip]:
    """Return the clips that metadata.json and labels.csv speak of; parts win over samples."""
    found = [
        (root / from_uri(entry.path), os.path.dirname(entry.path))
        for entry in listing.side
        if os.path.basename(entry.path).lower() in ("metadata.json", "labels.csv")
    ]
    outside = [
        (path, path.parent.name if _PART.fullmatch(path.parent.name) else "")
        for path in given
        if path.suffix.lower() in (".json", ".csv")
    ]
    inside = {os.path.realpath(path) for path, _ in found}
    clips: dict[str, _Clip] = {}
    contradictions: list[str] = []
    outside = [(path, f) for path, f in outside if os.path.realpath(path) not in inside]
    for path, folder in [*found, *outside]:
        place = _place(str(path.absolute().parent))
        rows = list(_read(path, place, folder, report))
        if rows:
            report.annotations.append(str(path))
        for clip in rows:
            before = clips.setdefault(clip.id, clip)
            report.duplicate_rows += before is not clip
            if {before.label, clip.label} == {REAL, FAKE}:
                contradictions.append(clip.id)
            if not before.place.isdigit() and clip.place.isdigit():
                clips[clip.id] = clip
    if contradictions:
        report.warnings.append(
            f"{len(contradictions):,} clips are REAL in one file and FAKE in another, "
            f"{contradictions[0]} for one: the part's own metadata.json counts, else the first."
        )
    return clips


def _place(folder: str) -> str:
    """Return what a path's folders say: the part's number wherever it is, others by the last."""
    names = folder.lower().split("/")
    if names[-1] in ("real", "fake"):  # somebody's own tree
        return ""
    for name in reversed(names):
        if found := _PART.fullmatch(name):
            return f"{int(found['number']):02d}"
    if names[-1] in ("train_sample_videos", _UNLABELLED):
        return _SAMPLE if names[-1] == "train_sample_videos" else _UNLABELLED
    split = SPLIT_WORDS.get(names[-1])
    return split if split in ("val", "test") else ""


def _read(path: Path, place: str, folder: str, report: Report) -> Iterator[_Clip]:
    rows = _read_csv(path) if path.suffix.lower() == ".csv" else _read_json(path)
    for name, facts in rows:
        clip = os.path.splitext(os.path.basename(name))[0]
        if _ID.fullmatch(clip) is None:
            continue
        said = facts.get("label", facts.get("is_fake"))
        label = _LABELS.get(str(said).lower())
        if label is None and said is not None:
            report.unknown_labels[str(said)] += 1
        original = os.path.splitext(str(facts.get("original") or ""))[0] or None
        split = SPLIT_WORDS.get(str(facts.get("split", "")).lower())
        yield _Clip(clip, place, label, original, split, folder)


def _read_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}); download the part again.") from error
    if not isinstance(content, dict):
        raise UsageError(
            f'{path} holds no JSON object; expected {{"ID.mp4": {{"label": "REAL"}}, ...}}.'
        )
    return ((name, facts) for name, facts in content.items() if isinstance(facts, dict))


def _read_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = csv_rows(path)
    places = columns_of(next(rows, []), _COLUMNS)
    if not {"name", "label"} <= places.keys():
        return
    for fields in rows:
        facts = {role: fields[n] for role, n in places.items() if n < len(fields)}
        if "name" in facts:
            yield facts.pop("name"), facts


def _add_files(
    clips: dict[str, _Clip], files: dict[str, list[Entry]], root: Path, report: Report
) -> None:
    """Give clips the place that their file has, and add the files that no metadata speaks of."""
    for name, entries in files.items():
        report.duplicate_files += len(entries) - 1
        entry = min(entries, key=lambda e: not _place_of(e, root).isdigit())
        place, folder = _place_of(entry, root), os.path.dirname(entry.path)
        clip = clips.get(name)
        if clip is None:
            label = _LABELS.get(os.path.basename(folder).lower())
            clips[name] = _Clip(name, place, label, None, None, folder)
            report.files_without_row += 1
            report.kept_without_row += 1
        elif not clip.place:
            clips[name] = clip._replace(place=place)


def _place_of(entry: Entry, root: Path) -> str:
    return _place(os.path.dirname(os.path.join(root.absolute(), entry.path)))


def _add_listed(clips: dict[str, _Clip], lists: mds.Lists) -> None:
    """Add the clips of MDS' lists that are not here: a test split with holes must look so."""
    folders = Counter(clip.folder for clip in clips.values() if _PART.fullmatch(clip.folder))
    usual = folders.most_common(1)[0][0] if folders else "dfdc_train_part_00"
    pattern = _PART.fullmatch(usual)
    assert pattern is not None
    padded = pattern["number"].startswith("0") and len(pattern["number"]) > 1
    for name, part in lists.parts().items():
        folder = f"{pattern['before']}{part:02d}" if padded else f"{pattern['before']}{part}"
        label = FAKE if name in lists.train else None
        clips.setdefault(name, _Clip(name, f"{part:02d}", label, None, None, folder))


def _rows(
    clips: dict[str, _Clip],
    files: dict[str, list[Entry]],
    members: dict[str, str],
    report: Report,
) -> Iterator[Row]:
    folds = _Folds(clips)
    for clip in clips.values():
        split = _split(clip)
        splits = [] if split is None else [f"dfdc:{split}"]
        if split == "train":
            splits.append(f"dfdc:fold{folds.of(clip)}")
        if clip.id in members:
            splits.append(f"mds:{members[clip.id]}")
        yield _row(clip, _best(files.get(clip.id, []), clip.folder), splits)
    if folds.apart:
        report.notes.append(
            f"{folds.apart:,} fakes are of another part than their original; they are in its fold."
        )


def _row(clip: _Clip, entry: Entry | None, splits: list[str]) -> Row:
    name = f"{clip.place}/{clip.id}" if clip.place else clip.id
    lost = f"{clip.folder}/{clip.id}.mp4" if clip.folder else f"{clip.id}.mp4"
    return {
        "dataset": "dfdc",
        "key": f"dfdc/{name}",
        "source_id": f"dfdc:{clip.id}",
        "group_id": f"dfdc:{clip.group}",
        "uri": to_uri(entry.path if entry is not None else lost),
        "end_s": _CLIP_SECONDS,
        "splits": splits,
        "labels": [] if clip.label is None else [CLASSES.index(clip.label)],
        "label_names": [] if clip.label is None else [clip.label],
        "expect": {"video": True, "audio": None, "fps": None, "duration_s": _CLIP_SECONDS},
        "extra": extra(
            original=f"{clip.original}.mp4" if clip.original else None,
            part=int(clip.place) if clip.place.isdigit() else None,
        ),
        "anchored": True,
        "bytes": entry.bytes if entry is not None else None,
    }


def _best(entries: list[Entry], folder: str) -> Entry | None:
    """Return the file of a clip: the one where it should lie, else one with content."""
    inside = [entry for entry in entries if os.path.dirname(entry.path) == folder]
    return max(inside or entries, key=lambda entry: bool(entry.bytes), default=None)


def _split(clip: _Clip) -> str | None:
    if clip.place.isdigit() or clip.place == _SAMPLE:
        return "train"
    return clip.place or clip.split


class _Folds:
    """Gives every original, with all its fakes, one of the folds."""

    def __init__(self, clips: dict[str, _Clip]) -> None:
        self.apart = 0
        self._part: dict[str, int] = {}
        for clip in clips.values():
            if clip.place.isdigit():
                part = int(clip.place)
                self._part[clip.group] = min(part, self._part.get(clip.group, part))
        for clip in clips.values():  # the original decides, where it is known
            if clip.original is None and clip.place.isdigit():
                self._part[clip.id] = int(clip.place)

    def of(self, clip: _Clip) -> int:
        """Return the fold of a clip."""
        part = self._part.get(clip.group)
        if part is None:
            digest = hashlib.sha1(f"glav dfdc fold 0 {clip.group}".encode(), usedforsecurity=False)
            return int.from_bytes(digest.digest()[:6]) % FOLDS
        self.apart += clip.place.isdigit() and int(clip.place) != part
        return part % FOLDS


def _note_classes(rows: list[Row], report: Report) -> None:
    """Count the classes of every split, and warn of splits that have only one."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for split in row["splits"]:
            counts.setdefault(split, Counter())[(row["label_names"] or ["none"])[0]] += 1
    for split, of in sorted(counts.items()):
        report.notes.append(
            f"{split}: {of[REAL]:,} real, {of[FAKE]:,} fake, {of['none']:,} without label."
        )
        empty = [name for name in CLASSES if not of[name]]
        if empty and "fold" not in split:
            report.warnings.append(
                f"{split} has no {' and no '.join(empty)} clip: no AUC can be computed on it. "
                "Check that the metadata.json of its parts are there."
            )


DFDC = Dataset(
    name="dfdc",
    title="DFDC",
    what="Ten-second clips of actors, some with a swapped face or voice: real or fake?",
    scale="119,154 + 4,000 + 10,000 clips, 370 hours, about 470 GB",
    licence=LICENCE,
    download=(
        "Sign in and accept the terms at ai.meta.com/datasets/dfdc or at Kaggle's 'Deepfake\n"
        "Detection Challenge'; download dfdc_train_part_00.zip to _49.zip (the MDS split needs\n"
        "parts 1-4 and 22-27 only) and unpack each: it holds a folder with its metadata.json.\n"
        "For the MDS split: train_list.txt and test_list.txt of commit 22dbf71, ACM_MM_2020/, in\n"
        "the repository abhinavdhall/deepfake."
    ),
    layouts=(
        "ROOT/dfdc_train_part_3/ID.mp4 + metadata.json      the number may be padded: part_03\n"
        "ROOT/train_sample_videos/ID.mp4 + metadata.json    Kaggle's 400 samples\n"
        "ROOT/{validation,test}/ID.mp4 + labels.csv or metadata.json\n"
        "ROOT/test_videos/ID.mp4                            Kaggle's 400 without labels\n"
        "ROOT/.../{real,fake}/ID.mp4                        labels by folder if nothing else says\n"
        "clips with other names: make a table with columns path, label, group (DATASET=table)"
    ),
    scan=scan,
    official=_OFFICIAL,
    annotations=(
        "metadata.json and labels.csv anywhere below ROOT; the MDS lists train_list.txt and\n"
        "test_list.txt in ROOT; or all of them in the file or folder named by --annotations"
    ),
)
"""The registry's entry."""
