"""LRS2: sentences spoken on BBC television, cut around the speaker's face.

Where from: the Lip Reading Sentences 2 pages of Oxford's Visual Geometry Group, with a password
after an agreement with the BBC. As published: pretrain 96,000 clips, train and val 47,000, test
1,243.

Layout: `mvlrs_v1/{main,pretrain}/19-DIGITS/00001.mp4` with `.txt` beside each (manifests/lrs.py),
and the lists train.txt, val.txt, test.txt (clips of main) and pretrain.txt, inside `mvlrs_v1` or
beside it. The first word of a list's row is the clip, `5535415699068794046/00001`; a second one,
whose meaning is not documented, is kept in `extra`. Clips of one 19-digit folder share a group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from manifests import lrs
from manifests.annotations import find, open_text, refuse_unread
from manifests.columns import Row, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.lrs import Utterance

LICENCE = (
    "agreement with the BBC: non-commercial academic research by universities and the like, not "
    "for industry; neither clips nor crops may be passed on"
)
_PARTS = {"pretrain": "pretrain", "train": "main", "val": "main", "test": "main"}
"""List -> folder of its clips."""
_LISTED = re.compile(r"(?:(?:main|pretrain)/)?(\d+)/(\d+)(?:\.mp4)?(?:\s+(.*\S))?\s*")
_Lists = dict[str, dict[str, str | None]]
"""List -> name of a clip, main/5535415699068794046/00001 -> what follows it in its row."""


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Join the lists with the clips below `root`."""
    listing = options.walk(root)
    report = Report("lrs2", LICENCE)
    report.ignored.update(listing.ignored)
    report.ignored.update(listing.other_kinds())
    clips = lrs.utterances(listing, ("main", "pretrain"), report)
    lists = _lists(find(root, options, (".txt",)), report)
    refuse_unread(options, report, "train.txt, val.txt, test.txt or pretrain.txt")
    wanted = list(_wanted(clips, lists, report))
    rows = lrs.rows(root, wanted, "lrs2", "lrs2", options.window_seconds, report)
    return table(rows), report


def _lists(paths: list[Path], report: Report) -> _Lists:
    """Read the lists among some files; of several with one name the first one counts."""
    lists: _Lists = {}
    for path in paths:
        name = path.stem.lower()
        if name not in _PARTS or name in lists:
            continue
        with open_text(path) as file:
            matches = [match for line in file if (match := _LISTED.fullmatch(line.strip()))]
        if matches:
            report.annotations.append(str(path))
            clips = {f"{_PARTS[name]}/{m[1]}/{m[2]}": m[3] for m in matches}
            report.duplicate_rows += len(matches) - len(clips)
            lists[name] = clips
    return lists


def _wanted(
    clips: dict[str, Utterance], lists: _Lists, report: Report
) -> Iterator[tuple[Utterance, list[str], Row]]:
    """Yield the clips that lists speak of, then those of folders that no list is for."""
    splits: dict[str, list[str]] = {}
    for split, names in lists.items():
        for name in names:
            splits.setdefault(name, []).append(split)
    folders = {part: lrs.usual_folder(clips.values(), part) for part in ("main", "pretrain")}
    for name, of in splits.items():
        tokens = [token for split in of if (token := lists[split][name]) is not None]
        clip = clips.get(name) or _lost(name, folders)
        yield clip, [f"lrs2:{split}" for split in of], {"list_token": tokens[0]} if tokens else {}
    listed = {_PARTS[split] for split in lists}
    without_split = 0
    for name, clip in clips.items():
        if name in splits:
            continue
        if clip.part in listed:
            report.files_without_row += clip.media is not None
            continue
        without_split += clip.part == "main"
        yield clip, ["lrs2:pretrain"] if clip.part == "pretrain" else [], {}
    if without_split:
        report.notes.append(
            f"{without_split:,} clips of main have no split: train.txt, val.txt and test.txt were "
            "not found. They are often beside mvlrs_v1: name that folder as ROOT, or the lists' "
            "folder with --annotations."
        )


def _lost(name: str, folders: dict[str, str]) -> Utterance:
    """Return a clip that a list speaks of and that is not there, where its like lie."""
    part, folder, number = name.split("/")
    return Utterance(part, folder, number, f"{folders[part]}/{folder}/{number}", None, None)


LRS2 = Dataset(
    name="lrs2",
    title="LRS2-BBC",
    what="Sentences spoken on BBC television, with the text, cut around the speaker's face.",
    scale="144,000 clips, 224 hours",
    licence=LICENCE,
    download=(
        "Sign the agreement on the page 'Lip Reading Sentences 2 (LRS2) Dataset' of the Visual\n"
        "Geometry Group, Oxford; download the parts with the password you get and the four lists,\n"
        "join and unpack them: they hold the folder mvlrs_v1; put the lists inside or beside it."
    ),
    layouts=(
        "ROOT/mvlrs_v1/{main,pretrain}/19-DIGITS/00001.mp4   with 00001.txt beside it\n"
        "ROOT/{main,pretrain}/19-DIGITS/00001.mp4            the same, from inside\n"
        "--window 15 cuts pretraining clips between words into pieces of at most 15 s"
    ),
    scan=scan,
    official={"lrs2:test": 1243},
    annotations=(
        "train.txt, val.txt, test.txt, pretrain.txt in ROOT or ROOT/mvlrs_v1, or in the folder "
        "named by --annotations; the .txt beside each clip"
    ),
    options=("annotations", "window_seconds"),
)
"""The registry's entry."""
