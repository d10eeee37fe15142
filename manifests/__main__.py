"""`python -m manifests`: build a manifest, check one, or list the data sets known.

Exit codes: 0 done, 2 the input or the command line is wrong.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

import manifests
from manifests import build, schema
from manifests.dataset import Dataset, ScanOptions
from manifests.errors import UsageError
from manifests.listing import Listing
from manifests.remote import located
from manifests.text import all_lines, say
from stores import is_remote
from stores.errors import StoreError


@dataclass(frozen=True)
class Build:
    """Scan a data set as it lies, join the official annotations, write the manifest."""

    dataset: str
    """Name of the data set; `python -m manifests datasets` lists them."""
    root: str | None = None
    """Folder with the files, or s3://bucket/raw, gs://...; default: DATA/raw/NAME."""
    out: Path | None = None
    """Manifest to write; default: DATA/manifests/NAME.parquet."""
    data: Path = Path("data")
    """Folder of the default paths."""
    annotations: Path | None = None
    """Annotation file, or folder with annotation files; default: looked for in ROOT."""
    table: Path | None = None
    """CSV, JSONL or Parquet file with one row per clip (data set 'table')."""
    window: float | None = None
    """Cut long recordings into windows of so many seconds ('folder' and 'table'), or pretraining
    clips into pieces of at most so many ('lrs2' and 'lrs3')."""
    hop: float | None = None
    """Seconds between the starts of two windows; default: the window's length."""
    label_set: int = 32
    """Classes of Kinetics-Sounds, 31 or 32."""
    reference: str = "vggsound"
    """AugVGG: the data set whose clips are manipulated."""
    recipe_seed: int = 0
    """AugVGG: another number draws other recipes."""
    planted_clips: int = ScanOptions.planted_clips
    """Planted corpus: how many clips are rendered."""
    planted_seconds: float = ScanOptions.planted_seconds
    """Planted corpus: how long each is."""
    planted_seed: int = ScanOptions.planted_seed
    """Planted corpus: another number draws another corpus."""
    planted_nuisance: float = ScanOptions.planted_nuisance
    """Planted corpus: 0 to 1 of a moving camera, silent rivals, drifting things, other sounds."""
    planted_light: float = ScanOptions.planted_light
    """Planted corpus: 0 to 1 of a stage light that follows how loud the performer is."""

    def run(self) -> int:
        """Build and print the report."""
        entry = manifests.dataset(self.dataset)
        root, listing = self._located(entry)
        out = self.out or build.default_out(entry.name, self.data)
        options = ScanOptions(
            annotations=self.annotations,
            table=self.table,
            window_seconds=self.window,
            hop_seconds=self.hop,
            label_set=self.label_set,
            reference=self.reference,
            recipe_seed=self.recipe_seed,
            listing=listing,
            planted_clips=self.planted_clips,
            planted_seconds=self.planted_seconds,
            planted_seed=self.planted_seed,
            planted_nuisance=self.planted_nuisance,
            planted_light=self.planted_light,
        )
        _, report = build.build(entry.name, root, out, options)
        say(*report.lines(), f"  manifest: {out}")
        say(f"next: make shards DATASET={entry.name}{self._wishes()}")
        return 0

    def _located(self, entry: Dataset) -> tuple[Path | None, Listing | None]:
        """The root, and its listing where it is in a bucket."""
        if self.root is not None and is_remote(self.root):
            return located(entry, self.root)
        if self.root is None and self.table is None:
            return build.default_root(entry.name, self.data, self.reference), None
        return None if self.root is None else Path(self.root), None

    def _wishes(self) -> str:
        """Return the wishes for the next command: without them it would make another manifest."""
        places = {"ROOT": self.root, "TABLE": self.table, "ANNOTATIONS": self.annotations}
        said = "".join(f" {name}={path}" for name, path in places.items() if path is not None)
        flags = {"--window": self.window, "--hop": self.hop}
        if self.label_set != Build.label_set:
            flags["--label-set"] = self.label_set
        for name in manifests.dataset("planted").options:
            if getattr(self, name) != getattr(Build, name):
                flags["--" + name.replace("_", "-")] = getattr(self, name)
        more = " ".join(f"{name} {value:g}" for name, value in flags.items() if value is not None)
        return f'{said} ARGS="{more}"' if more else said


@dataclass(frozen=True)
class Validate:
    """Check a manifest file and say what is wrong with it."""

    file: Annotated[Path, tyro.conf.Positional]
    """Parquet file."""

    def run(self) -> int:
        """Validate and print the sentences."""
        table = schema.read(self.file)
        names = table["dataset"].unique().to_pylist()
        known = {name: schema.read_labels(self.file, name) for name in names}
        vocabularies = {name: classes for name, classes in known.items() if classes is not None}
        problems = schema.validate(table, vocabularies)
        for text in schema.warnings(table):
            say(f"warning: {text}")
        if problems:
            raise UsageError(f"{self.file} is not valid:\n" + "\n".join(problems))
        say(f"{self.file}: {len(table):,} rows, valid")
        return 0


@dataclass(frozen=True)
class Datasets:
    """List the data sets known, or say how to get one of them."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """A data set: what it is, what to download, where to put it, and the command that follows."""

    def run(self) -> int:
        """Print name, content, scale and licence of all, or everything about one."""
        if self.name is not None:
            say(*build.describe(manifests.dataset(self.name)))
            return 0
        for name, entry in manifests.DATASETS.items():
            say(f"{name:<16} {entry.what}", f"{'':<16} {entry.scale}", f"{'':<16} {entry.licence}")
        aliases = ", ".join(f"{alias} = {name}" for alias, name in manifests.ALIASES.items())
        say(f"also understood: {aliases}")
        return 0


COMMANDS: dict[str, type[Build | Validate | Datasets]] = {
    "build": Build,
    "validate": Validate,
    "datasets": Datasets,
}


def _command(arguments: list[str]) -> Build | Validate | Datasets:
    """What is asked for; parsed by itself, so that advice on a wrong flag names its command."""
    if arguments and arguments[0] in COMMANDS:
        prog = f"python -m manifests {arguments[0]}"
        return tyro.cli(COMMANDS[arguments[0]], prog=prog, args=arguments[1:])
    return tyro.cli(Build | Validate | Datasets, prog="python -m manifests", args=arguments)


def main() -> int:
    """Run the command line; return the exit code."""
    arguments = sys.argv[1:]
    # Text only: `... | head` ends it quietly. Of what talks to a store this would make a connection
    # that breaks a silent death.
    if {"-h", "--help"} & set(arguments) or arguments[:1] == ["datasets"]:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        return int(_command(arguments).run())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `... | head` is enough
        return 0
    except (UsageError, StoreError) as error:
        print(f"error: {all_lines(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
