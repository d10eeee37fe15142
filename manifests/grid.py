"""GRID: 34 speakers saying 1,000 six-word sentences each, three seconds at 25 pictures a second.

Where from: the GRID audiovisual sentence corpus (s21 has sound only). As distributed: `s1/ID.mpg`
and `align/s1/ID.align` (or `alignments/s1/`); also read: `s1/video/…/ID.mpg`, `s1/align/ID.align`,
and one speaker as `video/ID.mp4` + `align/ID.align`, whose name then comes from ROOT's.

The name is the sentence: `bbaf2n` = bin blue at f two now. `.align` rows are `start end word`,
25,000 units a second (1,000 a picture); `sil` and `sp` are pauses. Words misspelt there take the
name's spelling and keep their times. The label is the digit: class n is the digit n.

There is no official split. Several speakers: s1, s2, s20 and s22 (LipNet's unseen ones) are test, a
seeded tenth of the others val. One speaker (or only test speakers): a seeded 80/10/10 by sentence,
and beside it five seeded folds by sentence, `grid:fold1` to `grid:fold5`, for cross-validation.
All depend on names alone, so a sentence never changes its split when files are added.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.errors import UsageError
from manifests.keys import slug
from manifests.listing import Entry, Listing, from_uri, to_uri

LICENCE = (
    "published for research under an open licence, CC BY 4.0 as far as we know; name the corpus "
    "(Cooke et al. 2006)"
)
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
"""The vocabulary: the class number is the digit."""
TEST_SPEAKERS = frozenset({"s1", "s2", "s20", "s22"})
"""LipNet's unseen speakers."""
FOLDS = 5
"""Folds by sentence, where there is one speaker."""
_WORDS = [
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    {"z": "zero", **{str(n): word for n, word in enumerate(DIGITS) if n}},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
]
_SENTENCE = re.compile(r"(?:(?:s|id)(\d+)_(?:vcd_)?)?([blps][bgrw][abiw][a-vx-z][z1-9][anps])")
_SPEAKER = re.compile(r"(?<![a-z0-9])s(\d{1,2})(?![0-9])", re.IGNORECASE)
_CONTAINERS = frozenset({"video", "videos", "align", "alignments", "mpg_6000", "mpg_vcd", "grid"})
_UNITS_PER_SECOND = 25_000
_PAUSES = frozenset({"sil", "sp"})
_FPS = 25.0
_CLIP_SECONDS = 3.0


class _Clip(NamedTuple):
    entry: Entry
    speaker: str
    sentence: str


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Read speakers and sentences off the names below `root`, and words off the alignments."""
    listing = options.walk(root)
    report = Report("grid", LICENCE, vocabulary=DIGITS)
    report.ignored.update(listing.ignored)
    report.ignored.update(listing.other_kinds())
    clips = _clips(listing, report)
    alignments = _Alignments(root, options)
    splits = _splits({clip.speaker for clip in clips}, report)
    result = table(_row(clip, alignments, splits) for clip in clips)
    alignments.note(report)
    return result, report


def _clips(listing: Listing, report: Report) -> list[_Clip]:
    """Return one clip per speaker and sentence; the first path of several copies."""
    clips: dict[tuple[str, str], _Clip] = {}
    for entry in listing.media():
        name = _name(entry.path, listing.root)
        if name is None:
            report.ignored["media files whose name is no GRID sentence"] += 1
        elif name in clips:
            report.duplicate_files += 1
            if not clips[name].entry.bytes and entry.bytes:
                clips[name] = _Clip(entry, *name)
        else:
            clips[name] = _Clip(entry, *name)
    return list(clips.values())


def _name(path: str, root: Path) -> tuple[str, str] | None:
    """Return (speaker, sentence) of a file; None: its name is no sentence."""
    stem = os.path.splitext(os.path.basename(path))[0]
    found = _SENTENCE.fullmatch(stem)
    if found is None:
        return None
    speaker = f"s{int(found[1])}" if found[1] else _speaker(path.split("/")[:-1], root)
    return speaker, found[2]


def _speaker(folders: list[str], root: Path) -> str:
    """Return a speaker by the nearest folder called like one, ROOT's name, or the last folder."""
    for folder in reversed(folders):
        if found := _SPEAKER.fullmatch(folder):
            return f"s{int(found[1])}"
    root_name = root.resolve().name
    if found := _SPEAKER.search(root_name):
        return f"s{int(found[1])}"
    own = [folder for folder in folders if folder.lower() not in _CONTAINERS]
    return slug(own[-1] if own else root_name)


def _row(clip: _Clip, alignments: _Alignments, splits: _Splits) -> Row:
    spoken = [words[letter] for words, letter in zip(_WORDS, clip.sentence, strict=True)]
    words = alignments.words(clip)
    facts: dict[str, Any] = {"speaker": clip.speaker}
    said = [word["w"] for word in words]
    if words and said != spoken:
        alignments.respelt += 1
        facts["align_words"] = said
        if len(words) == len(spoken):
            words = [{**word, "w": name} for word, name in zip(words, spoken, strict=True)]
    digit = spoken[4]
    return {
        "dataset": "grid",
        "key": f"grid/{clip.speaker}/{clip.sentence}",
        "source_id": f"grid:{clip.speaker}/{clip.sentence}",
        "group_id": f"grid:{clip.speaker}",
        "uri": to_uri(clip.entry.path),
        "end_s": _CLIP_SECONDS,
        "splits": splits.of(clip),
        "labels": [DIGITS.index(digit)],
        "label_names": [digit],
        "transcript": " ".join(spoken),
        "words": words,
        "expect": {"video": True, "audio": True, "fps": _FPS, "duration_s": _CLIP_SECONDS},
        "extra": extra(**facts),
        "anchored": True,
        "bytes": clip.entry.bytes,
    }


class _Alignments:
    """The `.align` files, by speaker and sentence."""

    def __init__(self, root: Path, options: ScanOptions) -> None:
        self.paths: dict[tuple[str, str], list[Path]] = {}
        self.by_sentence: dict[str, list[Path]] = {}
        self.used: set[Path] = set()
        self.without = self.respelt = 0
        for base, path in _align_files(root, options):
            name = _name(os.path.relpath(path, base), base)
            if name is not None:
                self.paths.setdefault(name, []).append(path)
                self.by_sentence.setdefault(name[1], []).append(path)

    def words(self, clip: _Clip) -> list[Row]:
        """Return a clip's words with times in seconds; empty: there is no alignment."""
        paths = self.paths.get((clip.speaker, clip.sentence))
        if paths is None:  # a folder without the speaker's name: right only if nobody else says it
            alike = self.by_sentence.get(clip.sentence, [])
            paths = alike if len(alike) == 1 and alike[0] not in self.used else []
        if not paths:
            self.without += 1
            return []
        self.used.update(paths)
        return _read_align(paths[0])

    def note(self, report: Report) -> None:
        """Say how many clips lack an alignment, and how many alignments lack a clip."""
        if self.without:
            report.notes.append(
                f"{self.without:,} clips have no .align file: transcript by name, no word times."
            )
        if left := len({path for paths in self.paths.values() for path in paths} - self.used):
            report.notes.append(f"{left:,} .align files have no clip.")
        if self.respelt:
            report.notes.append(
                f"{self.respelt:,} .align files spell words otherwise than the file's name; the "
                "name's words are used, theirs are in extra.align_words."
            )


def _align_files(root: Path, options: ScanOptions) -> Iterator[tuple[Path, Path]]:
    """Yield (folder it was looked for in, alignment file)."""
    for entry in options.walk(root).side:
        if entry.suffix == ".align":
            yield root, root / from_uri(entry.path)
    place = options.annotations
    if place is not None:
        if not place.is_dir():
            raise UsageError(
                f"--annotations {place} is no folder; expected the folder with GRID's .align files."
            )
        yield from ((place, path) for path in sorted(place.rglob("*.align")))


def _read_align(path: Path) -> list[Row]:
    words: list[Row] = []
    for number, line in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or not (fields[0].isdigit() and fields[1].isdigit()):
            raise UsageError(
                f"{path} row {number} is {line!r}; expected 'start end word' with 25,000 units a "
                "second. Repair or delete the file."
            )
        start_s, end_s = (int(field) / _UNITS_PER_SECOND for field in fields[:2])
        if fields[2] not in _PAUSES:
            words.append({"w": fields[2], "start_s": start_s, "end_s": end_s})
    return words


class _Splits:
    """Decides on train, val and test; see the module's docstring."""

    def __init__(self, speakers: set[str]) -> None:
        seen = sorted(speakers - TEST_SPEAKERS, key=_share)
        self.by_speaker = bool(seen) and len(seen) < len(speakers)
        # as many as a tenth, but none of fewer than three: somebody has to be trained on
        self.val_speakers = set(seen[: max(1, round(len(seen) / 10))]) if len(seen) > 2 else set()

    def of(self, clip: _Clip) -> list[str]:
        """Return a clip's splits."""
        if not self.by_speaker:
            return self._of_sentence(clip)
        if clip.speaker in TEST_SPEAKERS:
            return ["grid:test"]
        return ["grid:val" if clip.speaker in self.val_speakers else "grid:train"]

    def _of_sentence(self, clip: _Clip) -> list[str]:
        name = f"{clip.speaker}/{clip.sentence}"
        share = _share(name)
        split = "train" if share < 0.8 else "val" if share < 0.9 else "test"
        # a number of its own: the folds must not follow the three splits
        fold = int(_share(f"fold {name}") * FOLDS) + 1
        return [f"grid:{split}", f"grid:fold{fold}"]


def _splits(speakers: set[str], report: Report) -> _Splits:
    splits = _Splits(speakers)
    # the folds cross the three splits, and one speaker is in all of them
    report.protocols = [["grid:train", "grid:val", "grid:test"]]
    report.notes.append(
        "GRID has no official split; ours is by speaker "
        f"(test: {', '.join(sorted(speakers & TEST_SPEAKERS))}; "
        f"val: {', '.join(sorted(splits.val_speakers)) or 'none'})."
        if splits.by_speaker
        else "GRID has no official split; ours is by sentence, seeded: 80/10/10, and five folds."
    )
    return splits


def _share(text: str) -> float:
    """Return a fixed number in [0, 1) for a text."""
    digest = hashlib.sha1(f"glav grid split 0 {text}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:6]) / 2**48


GRID = Dataset(
    name="grid",
    title="GRID",
    what="34 speakers, each saying 1,000 six-word sentences such as 'bin blue at f two now'.",
    scale="33,000 clips of 3 s, 28 hours",
    licence=LICENCE,
    layouts=(
        "ROOT/s1/ID.mpg + ROOT/align/s1/ID.align        as distributed (alignments/ as well)\n"
        "ROOT/s1/video/.../ID.mpg + ROOT/s1/align/ID.align\n"
        "ROOT/video/ID.mp4 + ROOT/align/ID.align        one speaker, named by ROOT (grid-s1-...)\n"
        "ID is the sentence, e.g. bbaf2n"
    ),
    scan=scan,
    annotations="the .align files below ROOT, or below --annotations; without them no word times",
)
"""The registry's entry."""
