"""From a folder to a manifest file: `build` makes one, `ensure` makes one only if it has to.

Both print nothing; the report says everything, and whatever the user can put right is a
`UsageError` that teaches: what the data set is, which layouts are understood, what to type next.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

import manifests
from manifests import schema
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.errors import UsageError
from manifests.listing import Listing, fingerprint, walk
from manifests.table import root_of


class Built(NamedTuple):
    """A manifest that is true now."""

    table: pa.Table
    """Its rows, in the order of the file."""
    report: Report
    """What the scan found, now or when the manifest was made."""
    root: Path
    """Folder that relative uris start from."""
    rebuilt: bool
    """False: the file on the disk was still true."""


def build(
    name: str, root: Path | None, out: Path, options: ScanOptions | None = None
) -> tuple[pa.Table, Report]:
    """Scan a data set and write its manifest.

    Args:
        name: data set, canonical or alias.
        root: folder with the files; None only for `table`, whose paths then decide.
        out: the Parquet file to write; class names go to labels/NAME.json beside it.
        options: see `ScanOptions`.

    Raises:
        UsageError: nothing usable is at `root`, or an annotation file is wrong.
    """
    built = _build(manifests.dataset(name), root, out, options or ScanOptions())
    return built.table, built.report


def ensure(name: str, root: Path | None, out: Path, options: ScanOptions | None = None) -> Built:
    """Return the manifest `out`, made anew if files, annotations or options are other ones.

    Data sets with `rescan_always` are always made anew. Arguments as for `build`.
    """
    dataset, options = manifests.dataset(name), options or ScanOptions()
    if dataset.rescan_always or not out.is_file():
        return _build(dataset, root, out, options)
    root, options = _prepared(dataset, root, options)
    if not _is_true(dataset, root, out, options):
        return _build(dataset, root, out, options)
    vocabulary = schema.read_labels(out, dataset.name) or []
    report = Report.from_dict(schema.read_facts(out).report, vocabulary)
    return Built(schema.read(out), report, root, rebuilt=False)


def default_root(name: str, data: Path = Path("data"), reference: str | None = None) -> Path:
    """Return where a data set's files are expected: DATA/raw/NAME.

    Those of a view on any other data set (`augvgg`) are where that one's, the `reference`, are.
    """
    dataset = manifests.dataset(name)
    if reference is not None and "reference" in dataset.options:
        dataset = manifests.dataset(reference)
    return data / "raw" / dataset.raw_name


def default_out(name: str, data: Path = Path("data")) -> Path:
    """Return where a data set's manifest goes: DATA/manifests/NAME.parquet."""
    return data / "manifests" / f"{manifests.dataset(name).name}.parquet"


def teach(dataset: Dataset, problem: str) -> str:
    """Return a problem, followed by all that somebody needs who has never seen the data set."""
    return "\n".join([problem, "", *describe(dataset)])


def describe(dataset: Dataset) -> list[str]:
    """Return what a data set is, how to get it, where its files go, and the next commands."""
    lines = [f"{dataset.title}: {dataset.what} Size: {dataset.scale}.", ""]
    if dataset.download:
        lines += ["To download:", *_indented(dataset.download), ""]
        lines += [f"Put it below {default_root(dataset.name)}, or anywhere and name it ROOT.", ""]
    lines += ["Files are understood in these places:", *_indented(dataset.layouts), ""]
    if dataset.annotations:
        lines += ["Annotations:", *_indented(dataset.annotations), ""]
    lines += [f"Licence: {dataset.licence}.", "", "Then type one of:"]
    target = "--table my.csv [--root FOLDER]" if "table" in dataset.options else "--root FOLDER"
    make = "TABLE=my.csv" if "table" in dataset.options else "ROOT=FOLDER"
    lines += _indented(f"make shards DATASET={dataset.name} {make}")
    return lines + _indented(f"python -m manifests build --dataset {dataset.name} {target}")


def _build(dataset: Dataset, root: Path | None, out: Path, options: ScanOptions) -> Built:
    root, options = _prepared(dataset, root, options)
    assert options.listing is not None
    try:
        table, report = dataset.scan(root, options)
    except OSError as error:
        raise UsageError(f"{error.filename or root} cannot be read: {error.strerror}.") from error
    if dataset.generated:
        options = replace(options, listing=walk(root))
    report.official = report.official or dict(dataset.official)
    report.count(table)
    report.warnings += schema.warnings(table)
    _check(dataset, _home(root, options), table, report)
    labels = report.vocabulary
    problems = schema.validate(table, {dataset.name: labels} if labels else None)
    if problems:
        raise UsageError(f"the manifest of {dataset.name} would be wrong:\n" + "\n".join(problems))
    try:
        _write(dataset, root, table, out, options, report)
    except OSError as error:
        raise UsageError(f"the manifest {out} cannot be written: {error.strerror}.") from error
    del table  # two copies of millions of rows need not exist at a time
    return Built(schema.read(out), report, root, rebuilt=True)


def _write(
    dataset: Dataset, root: Path, table: pa.Table, out: Path, options: ScanOptions, report: Report
) -> None:
    schema.write(
        table,
        out,
        labels={dataset.name: report.vocabulary} if report.vocabulary else None,
        root=_home(root, options),
        fingerprint=_fingerprint(options),
        report=report.as_dict(),
        options=options.as_dict(),
    )


def _prepared(
    dataset: Dataset, root: Path | None, options: ScanOptions
) -> tuple[Path, ScanOptions]:
    """Check what can be checked before a scan, and list the root once."""
    _check_options(dataset, options)
    if root is None:
        if "table" not in dataset.options or options.table is None:
            what = "table" if "table" in dataset.options else "folder"
            raise UsageError(teach(dataset, f"No {what} was given for {dataset.name}."))
        root = root_of(options.table)
    if dataset.generated:
        root.mkdir(parents=True, exist_ok=True)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UsageError(teach(dataset, f"The folder {root} {what}."))
    if options.listing is None:
        # a table names its files itself: what else lies around is not its business
        listing = Listing(root) if "table" in dataset.options else walk(root)
        options = replace(options, listing=listing)
    return root, options


def _check_options(dataset: Dataset, options: ScanOptions) -> None:
    """Refuse wishes that the data set's adapter would not hear, and files that are not there."""
    for name in options.changed():
        if name not in dataset.options:
            heard = ", ".join(dataset.options) or "none"
            raise UsageError(
                f"the data set {dataset.name} has no option {name} (given: "
                f"{getattr(options, name)}); it has: {heard}. Leave it out."
            )
    elsewhere = options.listing is not None and options.listing.address
    if elsewhere and options.window_seconds is not None and dataset.name == "folder":
        raise UsageError(
            f"--window asks every file for its length, and the files lie in {elsewhere}; name them "
            "in a table with columns path, start, end (DATASET=table), or fetch them to a folder"
        )
    for name in ("annotations", "table"):
        path = getattr(options, name)
        if path is not None and not path.exists():
            raise UsageError(f"--{name} {path} does not exist; give the path of a file or folder.")


def _check(dataset: Dataset, root: str, table: pa.Table, report: Report) -> None:
    """Refuse a scan that found no file at all: the folder is the wrong one."""
    if report.rows > report.missing_files:
        return
    seen = ", ".join(f"{kind}: {n:,}" for kind, n in sorted(report.ignored.items())) or "nothing"
    problem = f"No file of {dataset.name} was recognised in {root} (seen there: {seen})."
    if report.rows:
        first = table["uri"][0].as_py()
        problem = (
            f"None of the {report.rows:,} files that {dataset.name} speaks of is in {root}; the "
            f"first one looked for is {first!r}."
        )
    if report.files_without_row:
        problem += f" {report.files_without_row:,} files belong to no annotation row."
    raise UsageError(teach(dataset, problem))


def _is_true(dataset: Dataset, root: Path, out: Path, options: ScanOptions) -> bool:
    """Return True if a manifest was made from these files with these options."""
    try:
        facts = schema.read_facts(out)
    except UsageError:
        return False  # of another version, or damaged: made anew
    return (
        facts.root == _home(root, options)
        and facts.fingerprint == _fingerprint(options)
        and facts.options == options.as_dict()
        and facts.report.get("dataset") == dataset.name
    )


def _home(root: Path, options: ScanOptions) -> str:
    """Where the uris of the manifest start."""
    assert options.listing is not None
    return options.listing.address or str(root.absolute())


def _fingerprint(options: ScanOptions) -> str:
    assert options.listing is not None
    given = (options.annotations, options.table)
    return fingerprint(options.listing, [path for path in given if path is not None])


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
