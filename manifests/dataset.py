"""What an adapter is made of: `Dataset` (entry), `ScanOptions` (wishes) and `Report` (facts).

An adapter is one function ``scan(root, options) -> (table, report)``. It walks nothing itself: it
takes the listing from ``options.walk(root)`` (manifests/listing.py) and gives rows to
``manifests.columns.table``. `manifests.build` does the rest: checks, counts, writing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.errors import UsageError
from manifests.listing import Listing, walk


@dataclass(frozen=True)
class ScanOptions:
    """What a user may say about a scan. Everything has a default that most people keep."""

    annotations: Path | None = None
    """Annotation file, or folder with annotation files; None: looked for in ROOT and below."""
    table: Path | None = None
    """CSV, JSONL or Parquet file with one row per clip (data set `table` only)."""
    window_seconds: float | None = None
    """Length of the windows that long recordings are cut into, in seconds; None: not cut.
    LRS2 and LRS3: the most that a piece of a pretraining clip lasts."""
    hop_seconds: float | None = None
    """Distance between the starts of two windows, in seconds; None: the window's length."""
    label_set: int = 32
    """Kinetics-Sounds: the list of 32 classes, or of 31 (without 'strumming guitar')."""
    reference: str = "vggsound"
    """AugVGG: the data set whose clips are manipulated."""
    recipe_seed: int = 0
    """AugVGG: what the recipes are drawn from."""
    planted_clips: int = 600
    """Planted corpus: how many clips are rendered."""
    planted_seconds: float = 7.0
    """Planted corpus: how long each is."""
    planted_seed: int = 0
    """Planted corpus: what everything is drawn from."""
    planted_nuisance: float = 1.0
    """Planted corpus: how much of what has nothing to do with the performer's sound there is."""
    planted_light: float = 0.0
    """Planted corpus: how much the whole picture brightens with the performer's sound."""
    listing: Listing | None = field(default=None, compare=False, repr=False)
    """A listing of ROOT made earlier, so that a million files are not walked twice."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("window_seconds", "hop_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} is {value}; expected a number of seconds above 0.")
        if self.hop_seconds is not None and self.window_seconds is None:
            raise UsageError(
                "--hop was given without --window; give both, e.g. --window 10 --hop 10."
            )
        if self.planted_clips < 1 or not 3 <= self.planted_seconds <= 60 or self.planted_seed < 0:
            raise UsageError(
                f"--planted-clips is {self.planted_clips}, --planted-seconds "
                f"{self.planted_seconds:g}, --planted-seed {self.planted_seed}; expected 1 or more "
                "clips, 3 to 60 seconds and a seed of 0 or more."
            )
        for name, none in (("nuisance", "only the performer moves and sounds"),
                           ("light", "no picture brightens as it sounds")):  # fmt: skip
            share = getattr(self, f"planted_{name}")
            if not 0 <= share <= 1:
                raise UsageError(f"--planted-{name} is {share:g}; expected 0 ({none}) to 1.")
        if self.label_set not in (31, 32):
            raise UsageError(f"label set {self.label_set} is unknown; expected 31 or 32.")

    def walk(self, root: Path) -> Listing:
        """Return the listing of `root`, walking it only if nobody has yet."""
        return self.listing if self.listing is not None else walk(root)

    def as_dict(self) -> dict[str, Any]:
        """Return the options that decide the manifest's content, as plain JSON values."""
        return {
            "annotations": None if self.annotations is None else str(self.annotations.absolute()),
            "table": None if self.table is None else str(self.table.absolute()),
            "window_seconds": self.window_seconds,
            "hop_seconds": self.hop_seconds,
            "label_set": self.label_set,
            "reference": self.reference,
            "recipe_seed": self.recipe_seed,
            # left out where they are as always: manifests of other data sets stay true
            **{name: getattr(self, name) for name in self.changed() if name.startswith("planted_")},
        }

    def changed(self) -> list[str]:
        """Return the names of the options that are not at their defaults."""
        return [
            option.name
            for option in fields(self)
            if option.name != "listing" and getattr(self, option.name) != option.default
        ]


@dataclass
class Report:
    """What a scan found. Counts close: every file and every annotation row is in one of them."""

    dataset: str
    """Canonical name of the data set."""
    licence: str = ""
    """Who may use the data for what, in one line."""
    annotations: list[str] = field(default_factory=list)
    """Annotation files that were read."""
    rows: int = 0
    """Rows in the manifest."""
    splits: dict[str, list[int]] = field(default_factory=dict)
    """Split name -> [rows, rows whose file is there]; '(none)' counts rows without a split."""
    official: dict[str, int] = field(default_factory=dict)
    """Split name -> rows as published; empty: nothing was published, or it varies."""
    protocols: list[list[str]] = field(default_factory=list)
    """Sets of splits that must not share a group, such as train and test of one fold; empty: no
    two splits may. Other pairs overlap by design, as train of one fold with test of another."""
    missing_files: int = 0
    """Rows whose file is not there; they stay rows and end as `missing_file` or `bad_path`."""
    files_without_row: int = 0
    """Media files that no annotation row speaks of."""
    kept_without_row: int = 0
    """How many of `files_without_row` became rows, with no label but what their folder says."""
    duplicate_files: int = 0
    """Further copies of a clip that is already a row."""
    duplicate_rows: int = 0
    """Annotation rows that repeat an earlier one."""
    replaced: int = 0
    """Clips taken from a folder of replacements for corrupt files."""
    unknown_labels: Counter[str] = field(default_factory=Counter)
    """Label names or folders that are not in the vocabulary -> how often."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Side files and other things that are no rows, by kind -> how many."""
    leaks: dict[str, int] = field(default_factory=dict)
    """'split & split' -> number of groups (source videos, speakers) that are in both."""
    labels_missing: list[str] = field(default_factory=list)
    """Classes of the vocabulary without a single row."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about rows that are allowed but odd (see `manifests.checks.warnings`)."""
    notes: list[str] = field(default_factory=list)
    """Sentences about decisions the adapter took."""
    vocabulary: list[str] = field(default_factory=list, repr=False)
    """Class names in the order of the class numbers; written to labels/NAME.json."""

    def count(self, table: pa.Table) -> None:
        """Fill in everything that can be read off the finished table."""
        self.rows = len(table)
        self.missing_files = table["bytes"].null_count
        self.splits = _count_splits(table)
        self.leaks = {p: n for p, n in _count_leaks(table).items() if self._is_leak(p)}
        used = set(pc.unique(_flatten(table["labels"])).to_pylist())
        self.labels_missing = [n for i, n in enumerate(self.vocabulary) if i not in used]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values (the vocabulary is a file of its own)."""
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "vocabulary"}
        # plain dicts: dataclasses.asdict makes nonsense of a Counter
        facts |= {"unknown_labels": dict(self.unknown_labels), "ignored": dict(self.ignored)}
        return {**facts, "classes": len(self.vocabulary)}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], vocabulary: list[str]) -> Report:
        """Return the report that `as_dict` was made from."""
        known = {name: value for name, value in facts.items() if name != "classes"}
        report = cls(**known, vocabulary=vocabulary)
        report.unknown_labels = Counter(report.unknown_labels)
        report.ignored = Counter(report.ignored)
        return report

    def lines(self) -> list[str]:
        """Return the report for a terminal: a table of splits, then what a user should know."""
        lines = [f"{self.dataset}: {self.rows:,} rows, {len(self.vocabulary):,} classes"]
        lines += self._table()
        lines += [f"  annotations: {path}" for path in self.annotations]
        lines += [f"  {text}: {n:,}" for text, n in self._counts() if n]
        lines += [f"  ignored {kind}: {n:,}" for kind, n in sorted(self.ignored.items())]
        lines += [f"  groups in both {pair}: {n:,}" for pair, n in sorted(self.leaks.items())]
        if self.labels_missing:
            names = _some(self.labels_missing)
            lines.append(f"  classes without a row: {len(self.labels_missing):,} ({names})")
        if self.unknown_labels:
            names = _some([f"{name} x{n}" for name, n in self.unknown_labels.most_common()])
            lines.append(f"  unknown labels: {len(self.unknown_labels):,} ({names})")
        if incomplete := self.incomplete():
            lines.append(
                f"  not the whole benchmark: {len(incomplete)} of {len(self.official)} splits have "
                "fewer files than were published; a result on a part cannot be compared"
            )
        lines += [f"  warning: {text}" for text in self.warnings]
        lines += [f"  note: {text}" for text in self.notes]
        return [*lines, f"  licence: {self.licence}"]

    def incomplete(self) -> dict[str, tuple[int, int]]:
        """Return the splits with fewer files than were published: name -> (there, published)."""
        there = {name: self.splits.get(name, [0, 0])[1] for name in self.official}
        return {s: (there[s], n) for s, n in self.official.items() if there[s] < n}

    def _table(self) -> list[str]:
        """The splits, one a line; a split that was published and is not there is one too."""
        names = sorted({*self.splits, *self.official})
        width = max([len(name) for name in names], default=5)
        head = ["rows", "with file", "missing", *(["published"] if self.official else [])]
        lines = [f"  {'split':<{width}}" + "".join(f"  {title:>11}" for title in head)]
        for name in names:
            rows, present = self.splits.get(name, [0, 0])
            cells = [f"{rows:,}", f"{present:,}", f"{rows - present:,}"]
            if self.official:
                cells.append(f"{self.official[name]:,}" if name in self.official else "-")
            lines.append(f"  {name:<{width}}" + "".join(f"  {cell:>11}" for cell in cells))
        return lines

    def _is_leak(self, pair: str) -> bool:
        names = set(pair.split(" & "))
        return not self.protocols or any(names <= set(splits) for splits in self.protocols)

    def _counts(self) -> list[tuple[str, int]]:
        return [
            (
                "rows without file (will end as missing_file, odd paths as bad_path)",
                self.missing_files,
            ),
            ("files without row", self.files_without_row),
            ("  of these kept as rows", self.kept_without_row),
            ("duplicate files left out", self.duplicate_files),
            ("duplicate rows left out", self.duplicate_rows),
            ("replaced by repaired copies", self.replaced),
        ]


Scan = Callable[[Path, ScanOptions], tuple[pa.Table, Report]]
"""The one function of an adapter: (root, options) -> (manifest table, report)."""


@dataclass(frozen=True)
class Dataset:
    """A data set as users know it, and the function that makes its manifest."""

    name: str
    """Canonical name: the manifest's file name and the value of the `dataset` column."""
    title: str
    """Name as written in papers."""
    what: str
    """One sentence: what the data set is."""
    scale: str
    """Clips and hours, with their source's uncertainty."""
    licence: str
    """One line: who may use it for what."""
    layouts: str
    """Help text: the folder layouts understood, and where the files go."""
    scan: Scan
    """Makes the manifest."""
    annotations: str = ""
    """Annotation files that are wanted and where they are looked for; empty: none needed."""
    rescan_always: bool = False
    """True where the files may change from day to day (`folder`, `table`)."""
    options: tuple[str, ...] = ("annotations",)
    """Names of the `ScanOptions` fields that this adapter reads."""
    generated: bool = False
    """True where the scan itself makes the files (`demo`); ROOT need not exist then."""
    raw: str = ""
    """Folder below DATA/raw with the files, where that is not `name`."""
    download: str = ""
    """What to download and from whom, one archive or list a line; empty: `layouts` says enough."""
    official: Mapping[str, int] = field(default_factory=dict)
    """Split name -> rows as published, for benchmarks that everybody counts alike."""

    @property
    def raw_name(self) -> str:
        """Folder below DATA/raw that holds the files by default."""
        return self.raw or self.name


def _flatten(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.list_flatten(column)


def _count_splits(table: pa.Table) -> dict[str, list[int]]:
    present = pc.is_valid(table["bytes"])
    counts: dict[str, list[int]] = {}
    parents = pc.list_parent_indices(table["splits"])
    flat = pa.table({"split": _flatten(table["splits"]), "here": pc.take(present, parents)})
    grouped = flat.group_by("split").aggregate([("here", "count"), ("here", "sum")])
    for row in grouped.to_pylist():
        counts[row["split"]] = [row["here_count"], row["here_sum"] or 0]
    bare = pc.equal(pc.list_value_length(table["splits"]), 0)
    without = pc.sum(bare).as_py() or 0
    if without:
        counts["(none)"] = [without, pc.sum(pc.and_(bare, present)).as_py() or 0]
    return counts


def _count_leaks(table: pa.Table) -> dict[str, int]:
    """Count the groups that are in two splits, per pair of splits."""
    parents = pc.list_parent_indices(table["splits"])
    flat = pa.table(
        {"split": _flatten(table["splits"]), "group": pc.take(table["group_id"], parents)}
    )
    pairs = flat.group_by(["group", "split"]).aggregate([])
    sizes = pairs.group_by("group").aggregate([("split", "count")])
    leaking = sizes.filter(pc.greater(sizes["split_count"], 1))["group"]
    if not len(leaking):
        return {}
    pairs = pairs.filter(pc.is_in(pairs["group"], value_set=leaking.combine_chunks()))
    splits_of: dict[str, list[str]] = {}
    for group, split in zip(pairs["group"].to_pylist(), pairs["split"].to_pylist(), strict=True):
        splits_of.setdefault(group, []).append(split)
    counts: Counter[str] = Counter()
    for splits in splits_of.values():
        names = sorted(splits)
        counts.update(f"{a} & {b}" for i, a in enumerate(names) for b in names[i + 1 :])
    return dict(counts)


def _some(names: list[str], most: int = 5) -> str:
    more = f", and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
