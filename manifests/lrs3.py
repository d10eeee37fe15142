"""LRS3-TED: sentences of TED and TEDx talks on YouTube, cut around the speaker's face.

Where from: Oxford's Visual Geometry Group; it can no longer be downloaded there, as far as we know,
but many have it. Version 0.4 has 118,516 pretrain, 31,982 trainval and 1,321 test clips (the paper
counts 1,452 test clips of an earlier version).

Layout: `{pretrain,trainval,test}/YOUTUBE-ID/50001.mp4` with `.txt` beside each (manifests/lrs.py).
The folder is the split. There is no official val: a list of clips, such as AV-HuBERT's
`lrs3-valid.id` with rows `trainval/00j9bKdiOjk/50001`, parts trainval into train and val, and then
no row is in `lrs3:trainval`. Clips of one video share a group.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from manifests import lrs
from manifests.annotations import find, open_text, refuse_unread, split_of
from manifests.columns import Row, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.listing import from_uri

LICENCE = (
    "CC BY-NC-ND 4.0 (as far as we know); the videos are TED's and their speakers', on YouTube: "
    "use them for research, do not pass them on"
)
_LISTED = re.compile(r"(?:trainval/)?([\w-]{11}/\d+)(?:\.mp4)?")
_OFFICIAL = {"lrs3:pretrain": 118_516, "lrs3:trainval": 31_982, "lrs3:test": 1321}


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Make one row per clip below `root`, or per piece of a pretraining clip."""
    listing = options.walk(root)
    report = Report("lrs3", LICENCE)
    report.ignored.update(listing.ignored)
    report.ignored.update(listing.other_kinds())
    clips = lrs.utterances(listing, ("pretrain", "trainval", "test"), report)
    val = _val(root, options, report)
    refuse_unread(options, report, "a list with rows such as trainval/00j9bKdiOjk/50001")
    splits = {"trainval": "train"} if val else {}
    if val:
        # trainval is no split any more
        report.official = {s: n for s, n in _OFFICIAL.items() if s != "lrs3:trainval"}
        absent = len(val - clips.keys())
        report.notes.append(
            f"trainval is parted by the val list: {len(val):,} clips in it, {absent:,} not there."
        )
    wanted: list[tuple[lrs.Utterance, list[str], Row]] = [
        (clip, [f"lrs3:{'val' if name in val else splits.get(clip.part, clip.part)}"], {})
        for name, clip in clips.items()
    ]
    rows = lrs.rows(root, wanted, "lrs3", "yt", options.window_seconds, report)
    return table(rows), report


def _val(root: Path, options: ScanOptions, report: Report) -> set[str]:
    """Return the names of the clips that a list sets apart for validation."""
    names: set[str] = set()
    for path in _candidates(root, options):
        with open_text(path) as file:
            found = {m[1] for line in file if (m := _LISTED.fullmatch(line.strip()))}
        if found:
            report.annotations.append(str(path))
            names |= {f"trainval/{name}" for name in found}
    return names


def _candidates(root: Path, options: ScanOptions) -> list[Path]:
    """Return the files that may be a val list: the one named, or those called so."""
    paths = find(root, options, (".id", ".txt"))
    if options.annotations is None:  # .id is no kind of side file
        files = options.walk(root).files
        paths += [root / from_uri(entry.path) for entry in files if entry.suffix == ".id"]
    elif options.annotations.is_file():
        return paths
    return [path for path in paths if split_of(path.stem) == "val"]


LRS3 = Dataset(
    name="lrs3",
    title="LRS3-TED",
    what="Sentences of TED and TEDx talks, with the text, cut around the speaker's face.",
    scale="152,000 clips, 438 hours",
    licence=LICENCE,
    download=(
        "The page 'LRS3-TED' of the Visual Geometry Group, Oxford, no longer gives the clips, as\n"
        "far as we know. Who has them has the folders pretrain, trainval and test."
    ),
    layouts=(
        "ROOT/{pretrain,trainval,test}/YOUTUBE-ID/50001.mp4   with 50001.txt beside it\n"
        "ROOT/.../{pretrain,trainval,test}/...                one or more folders further down\n"
        "--window 15 cuts pretraining clips between words into pieces of at most 15 s"
    ),
    scan=scan,
    official=_OFFICIAL,
    annotations=(
        "the .txt beside each clip; a val list such as AV-HuBERT's lrs3-valid.id in ROOT or named "
        "by --annotations parts trainval into train and val"
    ),
    options=("annotations", "window_seconds"),
)
"""The registry's entry."""
