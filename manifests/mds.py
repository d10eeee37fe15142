"""The split of DFDC that Chugh et al. 2020 (MDS, 'Not made for each other') trained and tested on.

Its lists have rows `bujfknruqx.dfdc_train_part_03`: train_list.txt 15,438 fakes, test_list.txt
3,281 clips, of parts 1-4 and 22-27; they are in the history of the authors' repository (commit
22dbf71, folder ACM_MM_2020) and are given by the user. `mds:train` is the listed fakes and their
originals, as the authors say. `mds:test` is the listed clips; if no real one is among them, then
also their originals, but for those that are trained on. The lists were drawn by clip: fakes of one
original are on both sides, which is counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from manifests.annotations import open_text, split_of
from manifests.dataset import Report
from manifests.errors import UsageError

_ROW = re.compile(r"([a-z]{10})(?:\.mp4)?\.dfdc_train_part_(\d{1,2})")
_PUBLISHED = {"train": 15_438, "test": 3281}
FAKE = "FAKE"
"""Name of the class of manipulated clips."""
REAL = "REAL"
"""Name of the class of untouched clips."""


class Known(NamedTuple):
    """What is known about a clip."""

    label: str | None
    """REAL or FAKE; None: nobody says."""
    original: str | None
    """Id of the clip that a fake was made from."""


@dataclass
class Lists:
    """The two lists: id of a clip -> its part."""

    train: dict[str, int] = field(default_factory=dict)
    test: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.train or self.test)

    def parts(self) -> dict[str, int]:
        """Return all ids with their parts."""
        return {**self.train, **self.test}


def read(paths: list[Path], report: Report) -> Lists:
    """Read the lists among some text files; others are passed over.

    Raises:
        UsageError: a list's name says neither train nor test, or a clip is in both.
    """
    lists = Lists()
    for path in paths:
        with open_text(path) as file:
            rows = [match for line in file if (match := _ROW.fullmatch(line.strip()))]
        if not rows:
            continue
        split = split_of(path.stem)
        if split not in _PUBLISHED:
            raise UsageError(
                f"{path} is a list of DFDC clips whose name says neither train nor test; call it "
                "train_list.txt or test_list.txt."
            )
        names = lists.train if split == "train" else lists.test
        before = len(names)
        names.update((row[1], int(row[2])) for row in rows)
        report.duplicate_rows += before + len(rows) - len(names)
        report.annotations.append(str(path))
    if both := lists.train.keys() & lists.test.keys():
        raise UsageError(
            f"{len(both):,} clips are in the train and in the test list, {min(both)} for one; "
            "expected the authors' lists, which share none."
        )
    return lists


def members(lists: Lists, known: Mapping[str, Known], report: Report) -> dict[str, str]:
    """Return id -> `train` or `test` of all clips of the split, and report what was decided."""
    split = dict.fromkeys(lists.train, "train")
    split.update(dict.fromkeys(lists.test, "test"))
    for original in sorted(_originals(lists.train, known)):
        split.setdefault(original, "train")
    if not any(known[i].label == REAL for i in lists.test if i in known):
        wanted = _originals(lists.test, known)
        trained_on = [i for i in wanted if split.get(i) == "train"]
        for original in sorted(wanted):
            split.setdefault(original, "test")
        if lists.test and wanted:
            report.notes.append(
                f"MDS: the test list has no real clip; its fakes' {len(wanted):,} originals are "
                f"added to mds:test, but for {len(trained_on):,} that are in mds:train."
            )
    _note(lists, known, split, report)
    return split


def _originals(ids: Mapping[str, int], known: Mapping[str, Known]) -> set[str]:
    """Return the originals of some fakes, those that are known clips themselves."""
    originals = {known[i].original for i in ids if i in known}
    return {i for i in originals if i is not None and i in known}


def _note(
    lists: Lists, known: Mapping[str, Known], split: Mapping[str, str], report: Report
) -> None:
    for name, ids in (("train", lists.train), ("test", lists.test)):
        unknown = sum(i not in known or known[i].label is None for i in ids)
        report.notes.append(
            f"MDS {name} list: {len(ids):,} names ({_PUBLISHED[name]:,} published), {unknown:,} of "
            "them in no metadata.json that is here."
        )
    train = {_group(i, known) for i, name in split.items() if name == "train"}
    test = {_group(i, known) for i, name in split.items() if name == "test" and i in known}
    report.notes.append(
        f"n_test_originals_in_train: {len(test & train):,} of the {len(test):,} originals behind "
        "mds:test are also behind mds:train."
    )
    wrong = sum(known[i].label == REAL for i in lists.train if i in known)
    if wrong:
        report.warnings.append(
            f"{wrong:,} clips of the MDS train list are REAL by their metadata.json; the authors "
            "say it lists fakes."
        )


def _group(clip: str, known: Mapping[str, Known]) -> str:
    return (known[clip].original if clip in known else None) or clip
