"""`python -m pipeline COMMAND`: raw videos to verified shards, and looking at them.

    python -m pipeline shards --dataset kinetics        make shards (resumes by itself)
    python -m pipeline peek data/shards/kinetics400-glcm --html peek.html

Exit codes: 0 complete, 2 usage, manifest or configuration, 3 incomplete (shards, retry, finalize,
verify), 4 output locked by another job (shards, retry, finalize, drop), 5 corrupt shards found.
Commands that only tell (status, plan, peek, errors, report) end with 0 when they could tell it.
"""

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from manifests.errors import UsageError
from manifests.text import all_lines, say
from pipeline import interrupt
from pipeline.options import ShardsOptions
from stores import is_remote
from stores.errors import StoreError

if TYPE_CHECKING:
    from pipeline.make import Outcome

USAGE, INCOMPLETE, LOCKED, CORRUPT = 2, 3, 4, 5
GROUP_MAY_READ = 0o050
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)

Out = Annotated[str, tyro.conf.Positional]
"""A folder, or s3://bucket/set, gs://bucket/set."""
Outs = Annotated[tuple[str, ...], tyro.conf.Positional]


def shards(options: Annotated[ShardsOptions, tyro.conf.arg(name="")]) -> int:
    """Make the shards of a data set, or what is missing of them.

    Plans, decodes, commits and indexes; run the same command again after any interruption.
    """
    from pipeline.make import make_shards

    with _addresses_in(options.out, options.scratch):
        return _said(make_shards(options, _say))


def plan(options: Annotated[ShardsOptions, tyro.conf.arg(name="")]) -> int:
    """Say what `shards` would do: samples, shards, bytes, core-hours, rows that will fail."""
    import tempfile

    from pipeline.estimate import plan_lines
    from pipeline.settings import job_options, wish

    with tempfile.TemporaryDirectory() as scratch:
        rows = wish(options, Path(scratch), say)
        say(*plan_lines(rows, job_options(options).limits, options.scratch or ""))
    return 0


def finalize(out: Out, /, partial: bool = False) -> int:
    """Write index, tables and report once the tasks of a job array are through.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        partial: write an index marked incomplete, so that training can start.
    """
    from pipeline.make import finalize_folder

    with _folder_of(out) as folder:
        return _said(finalize_folder(folder, partial=partial))


def status(out: Out, /, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """Say how far a shard set is, from its sidecars alone.

    Exits 0 for an unfinished set, too; `verify` exits 3 there, and `--json` has the counts.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        as_json: machine-readable.
    """
    from pipeline.status import status as read_status, status_lines

    with _folder_of(out) as folder:
        state = read_status(folder)
        _say(*([json.dumps(state.as_dict())] if as_json else status_lines(state)))
    return 0


def verify(out: Out, /, deep: bool = False, workers: int | None = None) -> int:
    """Check ledger, counts, sizes and hashes of a shard set.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        deep: also decode every sample, as the trainer does.
        workers: processes; default: the usable cores.
    """
    from pipeline.host import usable_cores
    from pipeline.verify import verify as run_verify

    with _folder_of(out) as folder:
        verdict = run_verify(folder, deep, workers=workers or usable_cores())
        _say(*verdict.lines())
    return int(verdict.exit_code)


def peek(
    out: Out,
    keys: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    /,
    html: Path | None = None,
    count: int = 8,
    where: str | None = None,
) -> int:
    """Show samples: frames, face, lips, mel and sound in step.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        keys: which samples; default: some, spread over the set.
        html: write one self-contained page instead of a summary.
        count: how many samples when no key is given.
        where: of those that pass, such as "silent or static"; see `report`.
    """
    from pipeline.peek import peek as run_peek
    from pipeline.playback import source_sound_of

    with _folder_of(out) as folder:
        sound_of = source_sound_of(folder)
        wanted = list(keys)
        lines = run_peek(folder, wanted, html=html, count=count, where=where, sound_of=sound_of)
        _say(*lines)
    return 0


def errors(out: Out, /, reason: str | None = None, most: int = 20) -> int:
    """Say why rows have no sample.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        reason: only this reason.
        most: how many rows to list.
    """
    from pipeline.summary import error_lines

    with _folder_of(out) as folder:
        _say(*error_lines(folder, reason, most))
    return 0


def retry(
    out: Out,
    /,
    reason: str,
    executor: str = "ray",
    workers: int | None = None,
    max_error_rate: float = 1.0,
    timeout: float | None = None,
    max_clip_seconds: float | None = None,
) -> int:
    """Try the rows again that failed for one reason; what comes of them goes into new shards.

    Worth it where chance, load or missing files were the cause; a damaged file fails again. No old
    shard is touched.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        reason: timeout, crash, out_of_memory, missing_file or any other that `errors` lists.
        executor: ray or local.
        workers: clips decoded at the same time.
        max_error_rate: stop when more than this share fails; default: go through.
        timeout: wall-clock seconds a file gets at least; default: as the set was made.
        max_clip_seconds: longest clip; default: as the set was made.
    """
    from pipeline.retry import retry as run_retry
    from pipeline.settings import job_options, stored_limits

    wanted = ShardsOptions(
        "folder",
        executor=executor,
        workers=workers,
        max_error_rate=max_error_rate,
        timeout=timeout,
        max_clip_seconds=max_clip_seconds,
    )
    with _folder_of(out) as folder:
        return _said(run_retry(folder, reason, job_options(wanted, stored_limits(folder)), _say))


def add_field(
    out: Out,
    field: Annotated[str, tyro.conf.Positional],
    /,
    mel_rate: int | None = None,
    table: Path | None = None,
    column: str | None = None,
    features: Path | None = None,
    from_source: bool = False,
    executor: str = "ray",
    workers: int | None = None,
    task: str | None = None,
    overwrite: bool = False,
) -> int:
    """Add a field to every sample of a finished set, without making the set again.

    lip, face and landmarks come from the stored frames, as sharp as these are; the loader joins
    them (`--fields lip`). Run the same command again after an interruption, or when the set grew.

    Args:
        out: folder of a shard set.
        field: lip, face, landmarks; or a name for what the flags below make.
        mel_rate: a mel of this rate in Hz, from the stored waveform; three slices a frame.
        table: a Parquet file with `key` and a column of numbers, one row a sample.
        column: that column; default: the field's name, or the only one.
        features: folder that `python -m train embed` wrote for this set.
        from_source: decode the source files again, for crops or a mel as sharp as they are.
        executor: ray or local.
        workers: clips at the same time.
        task: I/N: only every N-th shard from the I-th on (job arrays; then without).
        overwrite: make again what was made otherwise.
    """
    from pipeline.add_field import FieldWish, add_field as run_add_field
    from pipeline.settings import job_options, stored_limits

    if is_remote(out):
        raise UsageError(
            f"add-field works on a folder, and {out} is elsewhere: copy the set to a folder, add "
            "the field there, and copy the folder `fields` and shardindex.json back, in this order"
        )
    wanted = ShardsOptions(
        "folder", executor=executor, workers=workers, task=task, overwrite=overwrite
    )
    wish = FieldWish(field, mel_rate, features, table, column, from_source, overwrite)
    with _folder_of(out) as folder:
        job = job_options(wanted, stored_limits(folder))
        return _said(run_add_field(folder, wish, job, _say))


def drop(
    out: Out,
    /,
    keys: Path,
    reason: str = "",
    purge: bool = False,
    runs: Path = Path("runs"),
) -> int:
    """Take clips back: index, tables, report and every later job leave them out.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        keys: text file with one key a line, as in samples.parquet; errors can be dropped, too.
        reason: why, for whoever reads dropped.parquet.
        purge: also remove their bytes from tars and sidecars.
        runs: folder of training runs; those that saw the clips are listed.
    """
    from pipeline.drop import Wanted, drop as run_drop, read_keys

    with _folder_of(out) as folder:
        return _said(run_drop(folder, Wanted(read_keys(keys), reason, purge, runs)))


def report(out: Out, /, where: str | None = None) -> int:
    """Write the report page of a shard set again; count the clips that a condition lets pass.

    Args:
        out: folder of a shard set.
        where: such as "silent == false and face_rate > 0.8", over the columns of samples.parquet
            and those that `duplicates` and `offsets` add; as `train pretrain --where` reads it.
    """
    from pipeline.make import write_page
    from pipeline.view import view_lines, view_of

    with _folder_of(out) as folder:
        view = None if where is None else view_of(folder, where)
        _say(*(view_lines(view) if view else ()), f"Report: {write_page(folder, view)}")
        _push(out, folder)
    return 0


def duplicates(outs: Outs, /, workers: int | None = None) -> int:
    """Find clips that are there more than once, also rescaled, recompressed, cut or mirrored.

    Writes pairs with their distances into OUT/quality/duplicates.parquet, and columns for --where:
    "duplicate_rank == 0" keeps one clip of each group. Nothing is removed.

    Args:
        outs: folders of shard sets, made with any profile.
        workers: processes; default: the usable cores.
    """
    from pipeline.duplicates import duplicates as run_duplicates
    from pipeline.host import usable_cores

    with _folders_of(outs) as folders:
        _say(*run_duplicates(folders, workers=workers or usable_cores()))
        for out, folder in zip(outs, folders, strict=True):
            _push(out, folder)
    return 0


def leaks(
    outs: Outs,
    /,
    table: Path = Path("leaks.parquet"),
    html: Path | None = None,
    kinds: tuple[str, ...] = ("exact", "near", "picture", "sound", "source", "group"),
    workers: int | None = None,
) -> int:
    """Find what is learned from and held out, too: between splits, and between data sets.

    The first OUT is learned from (its train splits, or all of it where there are none); held out
    are its other splits and those of the other sets. Ends with 0 whatever is found.

    Args:
        outs: folders of shard sets, the one that is learned from first.
        table: where the pairs go; `train pretrain --without FILE` leaves their clips out.
        html: write a page with the pairs' pictures side by side.
        kinds: of likeness that count: exact near picture sound (content), source (the same file),
            group (the same speaker or source video).
        workers: processes; default: the usable cores.
    """
    from pipeline.host import usable_cores
    from pipeline.leakpage import write_page
    from pipeline.leaks import find_leaks, write_leaks

    with _folders_of(outs) as folders:
        found = find_leaks(folders, kinds, workers or usable_cores())
        write_leaks(found, table)
        _say(*found.lines(), f"Table: {table}; to leave them out: train pretrain --without {table}")
        if html is not None:
            write_page(found, html)
            say(f"Page: {html}")
        for out, folder in zip(outs, folders, strict=True):
            _push(out, folder)
    return 0


def offsets(out: Out, /) -> int:
    """Estimate by how much sound and picture of each clip are apart; columns for --where.

    From the mouth's opening where landmarks are stored, else from motion; av_offset_peak_ratio says
    how far the estimate can be believed.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
    """
    from pipeline.offsets import offsets as run_offsets

    with _folder_of(out) as folder:
        _say(*run_offsets(folder))
        _push(out, folder)
    return 0


def doctor() -> int:
    """Check libraries, model files, codecs, Ray and disk; say what is missing and how to get it."""
    from pipeline.doctor import doctor as run_doctor

    findings = run_doctor()
    say(*findings.lines())
    return int(findings.exit_code)


COMMANDS = {
    command.__name__.replace("_", "-"): command
    for command in (
        shards,
        plan,
        status,
        finalize,
        verify,
        peek,
        errors,
        retry,
        add_field,
        drop,
        report,
        duplicates,
        leaks,
        offsets,
        doctor,
    )
}


# --- sets on stores ---

_said_as: dict[str, str] = {}
"""Mirrors of sets on stores -> the addresses that people know them by."""


@contextlib.contextmanager
def _folder_of(out: str) -> Iterator[Path]:
    """The set as a folder: itself, or the mirror of one on a store, made true."""
    from pipeline.remote import reading

    with _addresses_in(out), reading(out) as folder:
        yield folder


@contextlib.contextmanager
def _folders_of(outs: tuple[str, ...]) -> Iterator[list[Path]]:
    """Several sets as folders."""
    if not outs:
        raise UsageError("name one shard set or more: folders, or s3://bucket/set")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_folder_of(out)) for out in outs]


def _push(out: str, folder: Path) -> None:
    """Upload what was written into the mirror of a set on a store."""
    from pipeline import remote

    if is_remote(out):
        with remote.alone(folder):
            remote.push(folder)


@contextlib.contextmanager
def _addresses_in(out: str | None, scratch: str | None = None) -> Iterator[None]:
    """What is said and raised inside names addresses, not their mirrors."""
    if out is not None and is_remote(out):
        from pipeline.remote import home_of

        _said_as[str(home_of(out, scratch))] = out.rstrip("/")
    yield


def _addressed(text: str) -> str:
    for folder, address in _said_as.items():
        text = text.replace(folder, address)
    return text


def _say(*lines: str) -> None:
    say(*map(_addressed, lines))


def _said(outcome: "Outcome") -> int:
    _say(*outcome.lines)
    return outcome.exit_code


def main() -> None:
    """Run one command and leave with its exit code."""
    interrupt.listen()
    os.umask(os.umask(0) & ~GROUP_MAY_READ)  # shard sets are shared by a group
    try:
        sys.exit(_run_command(sys.argv[1:]))
    except UsageError as error:
        sys.exit(_fail(str(error), USAGE))
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else interrupt.last()
        sys.exit(_fail("stopped; run the same command again to go on", 128 + number))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `... | head` is enough
    except Exception as error:
        sys.exit(_fail_by_kind(error))


def _run_command(arguments: list[str]) -> int:
    """Parse a command by itself, so that advice on a wrong flag names it and no other."""
    if arguments and arguments[0] in COMMANDS:
        prog = f"python -m pipeline {arguments[0]}"
        return tyro.cli(COMMANDS[arguments[0]], prog=prog, args=arguments[1:])
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="python -m pipeline", description=__doc__, args=arguments
    )


def _fail_by_kind(error: Exception) -> int:
    """The exit codes of errors whose modules are loaded only by the commands that raise them."""
    from pipeline.errors import ShardError, disk_sentence
    from pipeline.format import FormatError
    from pipeline.lock import LockedError
    from pipeline.outputs import NotFinishedError

    if isinstance(error, StoreError):
        return _fail(str(error), INCOMPLETE)
    if isinstance(error, LockedError):
        return _fail(str(error), LOCKED)
    if isinstance(error, FormatError):
        return _fail(str(error), CORRUPT)
    if isinstance(error, ShardError):
        return _fail(str(error), INCOMPLETE)
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return _fail(disk_sentence(str(error.filename or "the output"), error), INCOMPLETE)
    if isinstance(error, NotFinishedError):
        return _fail(str(error), USAGE)
    raise error


def _fail(message: str, code: int) -> int:
    print(f"error: {all_lines(_addressed(message))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
