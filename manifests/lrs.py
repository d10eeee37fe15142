"""What LRS2 and LRS3 share: utterances `PART/FOLDER/NUMBER.mp4` with a `.txt` beside each.

The `.txt` has sections parted by blank lines. The first one has `Text:  SENTENCE`, `Conf:  4` and,
in LRS3, `Ref:  ID`; pretraining clips (all of LRS3's) have one of words, `WORD START END ASDSCORE`,
in seconds; LRS3 has one of face boxes, which is not read. The text is what follows the first colon,
without curly braces; apostrophes and digits stay as they are.

Pretraining clips can be minutes long. `--window W` cuts them between words, as Auto-AVSR does:
words are added to a piece as long as it lasts at most W seconds, with up to 0.2 s of the pauses
before and after it, at most half a pause. A clip that fits stays whole, a single word that does not
is a piece. The key of a piece is the clip's, `-`, and its start in milliseconds.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from manifests.annotations import finite
from manifests.columns import Row, extra
from manifests.dataset import Report
from manifests.keys import slug
from manifests.listing import Entry, Listing, from_uri, to_uri

_FPS = 25.0
_MARGIN_SECONDS = 0.2


class Utterance(NamedTuple):
    """A clip, or what is left of it."""

    part: str
    """First folder: main, pretrain, trainval or test."""
    folder: str
    """The recording: a programme or a YouTube video."""
    number: str
    """File name without extension."""
    stem: str
    """Path below the root, without extension."""
    media: Entry | None
    """The clip; None: only its `.txt` is there, or only a list speaks of it."""
    side: Entry | None
    """Its `.txt`."""

    @property
    def name(self) -> str:
        """Name inside the data set: PART/FOLDER/NUMBER."""
        return f"{self.part}/{self.folder}/{self.number}"


class Speech(NamedTuple):
    """What a `.txt` says."""

    text: str | None
    """The sentence; None: there is none."""
    words: list[Row]
    """Words with their times in seconds of the clip; empty: not given."""
    facts: dict[str, str]
    """Confidence and reference."""


@dataclass
class Counts:
    """What was odd about the side files, for the report."""

    without_text: int = 0
    without_times: int = 0
    broken: list[str] = field(default_factory=list)
    pieces: int = 0

    def note(self, report: Report, window_seconds: float | None) -> None:
        """Turn the counts into sentences."""
        if self.without_text:
            report.notes.append(f"{self.without_text:,} clips have no .txt with 'Text:'.")
        if self.broken:
            report.notes.append(
                f"{len(self.broken):,} .txt files have word rows that are no 'WORD START END "
                f"SCORE' in rising seconds, these words have no times: {self.broken[0]} ..."
            )
        if self.without_times:
            report.notes.append(
                f"{self.without_times:,} pretraining clips have no word times and stay whole."
            )
        if window_seconds is not None:
            report.notes.append(
                f"pretraining clips are cut between words into pieces of at most "
                f"{window_seconds:g} s; {self.pieces:,} rows are such pieces."
            )


def utterances(listing: Listing, parts: Sequence[str], report: Report) -> dict[str, Utterance]:
    """Return the clips below a root by name; of several copies the first one counts."""
    pattern = re.compile(rf"(?:.*/)?(?P<part>{'|'.join(parts)})/(?P<folder>[^/]+)/(?P<number>\d+)")
    side = {os.path.splitext(e.path)[0]: e for e in listing.side if e.suffix == ".txt"}
    media = {os.path.splitext(e.path)[0]: e for e in listing.media()}
    found: dict[str, Utterance] = {}
    # clips first, so that a .txt in another copy of the folder does not make a missing file
    for stem in [*media, *(stem for stem in side if stem not in media)]:
        match = pattern.fullmatch(stem)
        if match is None:
            report.files_without_row += stem in media
            continue
        utterance = Utterance(
            match["part"], match["folder"], match["number"], stem, media.get(stem), side.get(stem)
        )
        if utterance.name not in found:
            found[utterance.name] = utterance
        else:
            report.duplicate_files += stem in media
    return found


def rows(
    root: Path,
    found: Sequence[tuple[Utterance, list[str], Row]],
    prefix: str,
    group: str,
    window_seconds: float | None,
    report: Report,
) -> Iterator[Row]:
    """Yield the rows of utterances, cut into pieces where that is wished and possible.

    Args:
        root: folder of the clips.
        found: utterance, its splits, and further facts for the column `extra`.
        prefix: data set name, first part of keys.
        group: what comes before the folder in `group_id`.
        window_seconds: longest piece of a pretraining clip; None: not cut.
        report: gets sentences about odd side files.
    """
    counts = Counts()
    for utterance, splits, facts in found:
        speech = _read(root, utterance, counts)
        spoken = speech.words[-1]["end_s"] if speech.words else None
        row = {
            "dataset": prefix,
            "key": f"{prefix}/{utterance.part}/{slug(utterance.folder)}/{utterance.number}",
            "source_id": f"{prefix}:{utterance.name}",
            "group_id": f"{group}:{utterance.folder}",
            "uri": to_uri(utterance.media.path if utterance.media else f"{utterance.stem}.mp4"),
            "splits": splits,
            "transcript": speech.text,
            "words": speech.words,
            "expect": {"video": True, "audio": True, "fps": _FPS, "duration_s": spoken},
            "extra": extra(**speech.facts, **facts),
            "anchored": True,
            "bytes": utterance.media.bytes if utterance.media else None,
        }
        if window_seconds is not None and utterance.part == "pretrain":
            yield from _cut(row, window_seconds, counts)
        else:
            yield row
    counts.note(report, window_seconds)


def usual_folder(found: Iterable[Utterance], part: str) -> str:
    """Return the folder that most clips of a part lie in, 'mvlrs_v1/main', or would lie in."""
    outer = Counter(utterance.stem.rsplit("/", 3)[0] for utterance in _inside(found, part))
    place = outer.most_common(1)[0][0] if outer else ""
    return f"{place}/{part}" if place else part


def _inside(found: Iterable[Utterance], part: str) -> list[Utterance]:
    """Return the clips that lie in an outer folder: those of a part, or all if it has none."""
    inner = [utterance for utterance in found if utterance.stem != utterance.name]
    return [utterance for utterance in inner if utterance.part == part] or inner


def _read(root: Path, utterance: Utterance, counts: Counts) -> Speech:
    if utterance.side is None:
        counts.without_text += 1
        return Speech(None, [], {})
    text = (root / from_uri(utterance.side.path)).read_text("utf-8-sig", "replace")
    try:
        speech = parse(text)
    except ValueError:
        counts.broken.append(utterance.side.path)
        speech = parse(text.partition("WORD START")[0])
    counts.without_text += speech.text is None
    counts.without_times += utterance.part == "pretrain" and not speech.words
    return speech


def parse(text: str) -> Speech:
    """Read a side file; see the module's docstring.

    Raises:
        ValueError: a word row has no times, or they do not rise.
    """
    lines = [line.strip() for line in text.splitlines()]
    facts: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and name.strip() in ("Text", "Conf", "Ref"):
            facts.setdefault(name.strip(), _plain(value))
    words: list[Row] = []
    for number, line in enumerate(lines):
        if line.split()[:3] == ["WORD", "START", "END"]:
            words = _words(lines[number + 1 :])
            break
    named = {"confidence": facts.get("Conf"), "reference": facts.get("Ref")}
    known = {name: value for name, value in named.items() if value is not None}
    return Speech(facts.get("Text"), words, known)


def _plain(text: str) -> str:
    """Return text without curly braces, with single spaces."""
    return " ".join(text.replace("{", "").replace("}", "").split())


def _words(lines: list[str]) -> list[Row]:
    """Read word rows up to the blank line that ends their section."""
    words: list[Row] = []
    for line in lines:
        fields = line.split()
        if not fields:
            break
        start_s, end_s = (finite(field) for field in fields[1:3])
        if not (words[-1]["start_s"] if words else 0) <= start_s <= end_s:
            raise ValueError(f"times of {line!r} do not rise")
        words.append({"w": _plain(fields[0]), "start_s": start_s, "end_s": end_s})
    return words


def _cut(row: Row, longest_seconds: float, counts: Counts) -> Iterator[Row]:
    """Yield the pieces of a row; the row itself where it is not longer, or has no word times."""
    groups = _groups(row["words"], longest_seconds)
    if len(groups) < 2:
        yield row
        return
    counts.pieces += len(groups)
    pauses = [
        max(0.0, later[0]["start_s"] - earlier[-1]["end_s"]) for earlier, later in pairwise(groups)
    ]
    # before the first word there is nobody to share the pause with; how long the file goes on
    # after the last one is not known here
    for words, before, after in zip(
        groups, [2 * groups[0][0]["start_s"], *pauses], [*pauses, 0.0], strict=True
    ):
        start = words[0]["start_s"] - min(_MARGIN_SECONDS, before / 2)
        end = max(words[-1]["end_s"] + min(_MARGIN_SECONDS, after / 2), start + 1 / _FPS)
        yield _piece(row, words, round(start, 6), round(end, 6))


def _groups(words: list[Row], longest_seconds: float) -> list[list[Row]]:
    groups: list[list[Row]] = []
    for word in words:
        room = longest_seconds - 2 * _MARGIN_SECONDS
        if groups and word["end_s"] - groups[-1][0]["start_s"] <= room:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _piece(row: Row, words: list[Row], start_s: float, end_s: float) -> Row:
    times = ("start_s", "end_s")
    return {
        **row,
        "key": f"{row['key']}-{round(start_s * 1000):08d}",
        "start_s": start_s,
        "end_s": end_s,
        "pre_trimmed": False,
        "expect": {**row["expect"], "duration_s": round(end_s - start_s, 6)},
        "transcript": " ".join(word["w"] for word in words),
        "words": [{**w, **{name: round(w[name] - start_s, 6) for name in times}} for w in words],
    }
