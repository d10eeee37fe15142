"""From the flags of the command line to what they mean: folders, configs, rows."""

import dataclasses
import math
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import manifests
import manifests.build
from manifests import schema
from manifests.dataset import ScanOptions
from manifests.errors import UsageError
from manifests.listing import Listing
from manifests.remote import local_copy, located, open_root
from pipeline import PROFILES, profile_for
from pipeline.config import Limits, ShardConfig
from pipeline.host import usable_cores
from pipeline.job import JobOptions
from pipeline.options import ShardsOptions
from pipeline.prepare import Wish, load
from pipeline.remote import home_of
from pipeline.watch import WatchOptions
from stores import is_remote

MOST_ADVISED_FPS = 60


def output_folder(options: ShardsOptions) -> Path:
    """Where the shards go: a folder, or the mirror of one on a store.

    Raises:
        UsageError: its name cannot stand in tables and on pages.
    """
    if options.out is not None:
        try:
            options.out.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"--out {options.out!a}: the name is not UTF-8, and tables and pages have to "
                "name it; choose another one"
            ) from None
        return home_of(options.out, options.scratch)
    name = manifests.dataset(options.dataset).name
    return Path(options.data) / "shards" / f"{name}-{shard_config(options).profile}"


def shard_config(options: ShardsOptions) -> ShardConfig:
    """The profile, with the flags applied.

    Raises:
        UsageError: unknown profile, or values that do not go together.
    """
    manifests.load_plugins()  # they may bring profiles
    name = options.profile or profile_for(manifests.dataset(options.dataset).name)
    if name not in PROFILES:
        raise UsageError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}")
    changes: dict[str, Any] = {}
    if options.faces is not None:
        changes["faces"] = options.faces
    if options.fps is not None:
        changes["fps"] = _fps(options.fps)
    if options.min_seconds is not None:
        changes["min_seconds"] = _min_seconds(options.min_seconds)
    try:
        return dataclasses.replace(PROFILES[name], **changes)
    except ValueError as error:
        advice = f". {_good_rates(name)}" if options.fps is not None else ""
        raise UsageError(f"profile {name}: {error}{advice}") from error


def _good_rates(profile: str) -> str:
    """Which `--fps` a profile takes: its sound must divide into whole samples."""
    good = []
    for fps in range(1, MOST_ADVISED_FPS + 1):
        with suppress(ValueError):
            dataclasses.replace(PROFILES[profile], fps=Fraction(fps))
            good.append(str(fps))
    return f"--fps takes {', '.join(good)} here"


def _fps(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"--fps is {text!r}; expected frames a second, such as 10, 25 or 30000/1001"
        ) from error


def _min_seconds(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"--min-seconds is {text!r}; expected seconds above 0, such as 0.5 or 1/2"
        ) from error


def stored_limits(out: Path) -> Limits:
    """The limits a set was made with; those of today for a set that does not say."""
    return Limits(**load(out).stored.get("limits", {}))


def job_options(options: ShardsOptions, limits: Limits | None = None) -> JobOptions:
    """How the job runs.

    Args:
        options: the flags.
        limits: what holds where no flag says otherwise.

    Raises:
        UsageError: a flag has a value that cannot be.
    """
    if options.executor not in ("ray", "local"):
        raise UsageError(f"--executor {options.executor}: expected ray or local")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers {options.workers}: expected at least 1")
    for name in ("log_seconds", "seconds_per_shard", "limit", "timeout", "max_clip_seconds"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected a number above 0")
    if not 0 <= options.max_error_rate <= 1:
        raise UsageError(f"--max-error-rate {options.max_error_rate}: expected 0 to 1")
    limits = limits or Limits()
    if options.timeout is not None:
        limits = dataclasses.replace(limits, base_seconds=options.timeout)
    if options.max_clip_seconds is not None:
        limits = dataclasses.replace(limits, max_clip_seconds=options.max_clip_seconds)
    if options.task is not None and options.overwrite:
        raise UsageError(
            "--overwrite with --task would wipe what the other tasks have made; remove the output "
            "folder once, then start the tasks"
        )
    return JobOptions(
        executor=options.executor,
        workers=options.workers or usable_cores(),
        ray_address=options.ray_address or os.environ.get("RAY_ADDRESS") or None,
        max_error_rate=options.max_error_rate,
        limits=limits,
        scratch=options.scratch or "",
        watch=WatchOptions(options.metrics_port, options.metrics_host),
        log_seconds=options.log_seconds,
        task=_task(options.task),
    )


def _task(text: str | None) -> tuple[int, int] | None:
    """(I, N) from `I/N`."""
    if text is None:
        return None
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise UsageError(f"--task {text}: expected I/N with I from 0 to N-1, such as 0/16")
    return int(first), int(count)


def wish(options: ShardsOptions, out: Path, say: Any) -> Wish:
    """The manifest's rows and what to do with them."""
    dataset = manifests.dataset(options.dataset)
    path, root = _manifest(options, out, say)
    every = "folder" in (dataset.name, options.reference)
    takes_every_file = every and options.manifest is None
    if takes_every_file and _is_inside(options.out or str(out), root):
        raise UsageError(
            f"the output folder {options.out or out} lies inside the root {root}, so shards would "
            "become input of the next run; choose an --out outside of it"
        )
    rows = schema.read(path)
    problems = schema.validate(rows) if options.manifest is not None else []
    if problems:
        raise UsageError(f"manifest {path}: " + " ".join(problems))
    return Wish(
        rows=rows,
        dataset=dataset.name,
        root=root,
        licence=dataset.licence,
        labels=tuple(schema.read_labels(path, dataset.name) or ()),
        config=shard_config(options),
        seconds_per_shard=options.seconds_per_shard,
        limit=options.limit,
        overwrite=options.overwrite,
        limits=job_options(options).limits,
    )


def _is_inside(out: str, root: str) -> bool:
    """Whether what is made would be found among what it is made from."""
    if is_remote(out) or is_remote(root):
        return f"{out.rstrip('/')}/".startswith(f"{root.rstrip('/')}/")
    return Path(out).resolve().is_relative_to(Path(root).resolve())


def _named_manifest(options: ShardsOptions) -> tuple[Path, str]:
    """A manifest made earlier, and where its files are."""
    path = local_copy(str(options.manifest), "--manifest", options.scratch)
    root = options.root or schema.read_facts(path).root
    if is_remote(root):
        open_root(root)
        return path, root.rstrip("/")
    if not Path(root).is_dir():
        raise UsageError(f"the root of {path} is {root!r}; name the folder with --root")
    return path, str(Path(root).absolute())


def _manifest(options: ShardsOptions, out: Path, say: Any) -> tuple[Path, str]:
    """The manifest file and the root its paths count from; made if it is not there or not true."""
    if options.manifest is not None:
        return _named_manifest(options)
    data = Path(options.data)
    path = manifests.build.default_out(options.dataset, data)
    if options.out is not None:
        path = out / "scan" / "manifest.parquet"  # labels of the scan are not those of the set
    root_wanted, listing = _root(options)
    needs_table = "table" in manifests.dataset(options.dataset).options
    if root_wanted is None and not needs_table:
        root_wanted = manifests.build.default_root(options.dataset, data, options.reference)
    scan = ScanOptions(
        annotations=_copy_of(options.annotations, "--annotations", options),
        table=_copy_of(options.table, "--table", options),
        window_seconds=options.window,
        hop_seconds=options.hop,
        label_set=options.label_set,
        reference=options.reference,
        recipe_seed=options.recipe_seed,
        listing=listing,
        planted_clips=options.planted_clips,
        planted_seconds=options.planted_seconds,
        planted_seed=options.planted_seed,
        planted_nuisance=options.planted_nuisance,
        planted_light=options.planted_light,
    )
    built = manifests.build.ensure(options.dataset, root_wanted, path, scan)
    if built.rebuilt:
        for line in built.report.lines():
            say(line)
    return path, listing.address if listing else str(built.root.absolute())


def _root(options: ShardsOptions) -> tuple[Path | None, Listing | None]:
    """The root that was named, and its listing where it is on a store."""
    named = options.root
    if named is None and options.table is not None and is_remote(options.table):
        named = options.table.rpartition("/")[0]  # files lie beside or below their table
    if named is not None and is_remote(named):
        return located(manifests.dataset(options.dataset), named, options.scratch)
    return None if named is None else Path(named), None


def _copy_of(address: str | None, what: str, options: ShardsOptions) -> Path | None:
    return None if address is None else local_copy(address, what, options.scratch)
