"""LRW: one of 500 words spoken in the middle of 29 pictures of BBC television.

Where from: the Lip Reading in the Wild pages of Oxford's Visual Geometry Group, with a password
after an agreement with the BBC. 514,000 clips are train and val, 25,000 test; val and test have 50
clips of each word.

Layout: `lipreading_mp4/WORD/{train,val,test}/WORD_00001.mp4`, each with a `.txt` beside it. The
folder is the split, and the class number is the position in the sorted words; a list of all words
(`500WordsSortedList.txt`) keeps it right where words are missing. The `.txt` has rows
`Name: value`; `Duration: 0.53 seconds` (or else its fifth row) is the word's length. The word lies
in the middle of the clip, which gives its times: 0.58 s -+ half of it. Clips of one broadcast
('Disk reference') share a group.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from manifests.annotations import find, finite, open_text, plain, refuse_unread
from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.keys import slug
from manifests.listing import Entry, Listing, from_uri, to_uri

LICENCE = (
    "agreement with the BBC: non-commercial academic research by universities and the like, not "
    "for industry; neither clips nor crops may be passed on"
)
_WORDS = 500
_PER_WORD = 50
_FPS = 25.0
_FRAMES = 29
_CLIP_SECONDS = _FRAMES / _FPS
_PATH = re.compile(r"(?:.*/)?(?P<word>[^/]+)/(?P<split>train|val|test)/(?P<name>(?P=word)_\d+)")


class _Clip(NamedTuple):
    word: str
    split: str
    name: str
    media: Entry | None
    side: Entry | None
    stem: str
    """Path without extension."""


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Make one row per clip below `root`, or per `.txt` whose clip is lost."""
    listing = options.walk(root)
    report = Report("lrw", LICENCE)
    report.ignored.update(listing.ignored)
    report.ignored.update(listing.other_kinds())
    clips = _clips(listing, report)
    report.vocabulary = _vocabulary({clip.word for clip in clips}, root, options, report)
    return table(_rows(root, clips, report)), report


def _clips(listing: Listing, report: Report) -> list[_Clip]:
    """Pair clips with their side files; of several copies of a clip the first one counts."""
    clips: dict[tuple[str, str], _Clip] = {}
    side = {os.path.splitext(entry.path)[0]: entry for entry in listing.side if _is_text(entry)}
    for entry in listing.media():
        stem = os.path.splitext(entry.path)[0]
        clip = _clip(stem, entry, side.get(stem))
        if clip is None:
            report.files_without_row += 1
        elif (clip.split, clip.name) in clips:
            report.duplicate_files += 1
        else:
            clips[clip.split, clip.name] = clip
    for stem, entry in side.items():
        clip = _clip(stem, None, entry)
        if clip is not None:
            clips.setdefault((clip.split, clip.name), clip)
    return list(clips.values())


def _clip(stem: str, media: Entry | None, side: Entry | None) -> _Clip | None:
    """Return the clip that a path without extension speaks of; None: it is no LRW name."""
    found = _PATH.fullmatch(stem)
    if found is None:
        return None
    return _Clip(found["word"], found["split"], found["name"], media, side, stem)


def _is_text(entry: Entry) -> bool:
    return entry.suffix == ".txt"


def _vocabulary(words: set[str], root: Path, options: ScanOptions, report: Report) -> list[str]:
    """Return the classes: of a list of words that has all those found, else the words found."""
    names = words
    for path in find(root, options, (".txt",)) if words else []:
        with open_text(path) as file:
            listed = {line.strip() for line in file if line.strip()}
        if words <= listed and not any(" " in line for line in listed):
            report.annotations.append(str(path))
            names = listed
            break
    if words:
        refuse_unread(options, report, "a list of all words, one a row")
    if words and len(names) != _WORDS:
        report.notes.append(
            f"{len(names)} words were found, the data set has {_WORDS}: the class numbers are not "
            "the official ones. Name the list of all words with --annotations."
        )
    return sorted(names)


def _rows(root: Path, clips: list[_Clip], report: Report) -> Iterator[Row]:
    number = {word: i for i, word in enumerate(report.vocabulary)}
    without = 0
    for clip in clips:
        facts = _facts(root, clip)
        duration = _duration(facts)
        without += duration is None
        yield {**_row(clip, facts), **_spoken(clip, number[clip.word], duration)}
    if without:
        report.notes.append(
            f"{without:,} clips have no .txt with a duration: the word's times are not known."
        )


def _row(clip: _Clip, facts: dict[str, str]) -> Row:
    name = f"{clip.split}/{clip.name}"
    broadcast = facts.get("disk_reference")
    path = clip.media.path if clip.media is not None else f"{clip.stem}.mp4"
    about = {key: value for key, value in facts.items() if key not in ("duration", "row_5")}
    return {
        "dataset": "lrw",
        "key": f"lrw/{clip.split}/{slug(clip.name)}",
        "source_id": f"lrw:{name}",
        "group_id": f"lrw:{broadcast or name}",
        "uri": to_uri(path),
        "end_s": _CLIP_SECONDS,
        "splits": [f"lrw:{clip.split}"],
        "expect": {"video": True, "audio": True, "fps": _FPS, "duration_s": _CLIP_SECONDS},
        "extra": extra(frames=_FRAMES, duration=_duration(facts), **about),
        "anchored": True,
        "bytes": clip.media.bytes if clip.media is not None else None,
    }


def _spoken(clip: _Clip, label: int, duration: float | None) -> Row:
    """Return what is said: the class, and the word's window around the middle of the clip."""
    row: Row = {"labels": [label], "label_names": [clip.word], "transcript": clip.word}
    if duration is None:
        return row
    half = min(duration, _CLIP_SECONDS) / 2
    window = {
        "start_s": round(_CLIP_SECONDS / 2 - half, 6),
        "end_s": round(_CLIP_SECONDS / 2 + half, 6),
    }
    return {**row, "words": [{"w": clip.word, **window}], "segments": [{**window, "label": label}]}


def _facts(root: Path, clip: _Clip) -> dict[str, str]:
    """Read a `.txt`: name -> value of its `Name: value` rows, and the fifth row as `row_5`."""
    if clip.side is None:
        return {}
    text = (root / from_uri(clip.side.path)).read_text("utf-8-sig", "replace")
    lines = [line.strip() for line in text.splitlines()]
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    facts = {plain(name): value.strip() for name, value in pairs}
    return {**facts, "row_5": lines[4]} if len(lines) > 4 else facts


def _duration(facts: dict[str, str]) -> float | None:
    """Return a word's length in seconds: the number after `Duration:`, else row 5's second word."""
    for text in (facts.get("duration", ""), facts.get("row_5", "").partition(" ")[2]):
        try:
            seconds = finite(text.split()[0])
        except (IndexError, ValueError):
            continue
        if seconds > 0:
            return seconds
    return None


LRW = Dataset(
    name="lrw",
    title="LRW",
    what="One of 500 English words, spoken in the middle of 1.16 s of BBC television.",
    scale="539,000 clips of 29 pictures, 173 hours",
    licence=LICENCE,
    download=(
        "Sign the agreement on the page 'The Oxford-BBC Lip Reading in the Wild (LRW) Dataset' of\n"
        "the Visual Geometry Group, Oxford; download the parts with the password you get, join\n"
        "and unpack them: they hold the folder lipreading_mp4."
    ),
    layouts=(
        "ROOT/lipreading_mp4/WORD/{train,val,test}/WORD_00001.mp4   with WORD_00001.txt beside it\n"
        "ROOT/WORD/{train,val,test}/WORD_00001.mp4                  the same, from inside\n"
        "mouth crops made by others (.npz) are no videos and are not read"
    ),
    scan=scan,
    official={f"lrw:{split}": _WORDS * _PER_WORD for split in ("val", "test")},
    annotations=(
        "the .txt beside each clip; a list of all 500 words, one a row, in ROOT or named by "
        "--annotations, where you have only some of them"
    ),
)
"""The registry's entry."""
