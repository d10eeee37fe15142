"""Commands that make shards, or what belongs to them: shards, plan, finalize, retry, add-field."""

from pathlib import Path
from typing import Annotated

import tyro

from manifests.text import say
from pipeline.commands.sets import Out, addresses_in, folder_of, said, tell
from pipeline.options import ShardsOptions


def shards(options: Annotated[ShardsOptions, tyro.conf.arg(name="")]) -> int:
    """Make the shards of a data set, or what is missing of them.

    Plans, decodes, commits and indexes; run the same command again after any interruption.
    """
    from pipeline.make import make_shards

    with addresses_in(options.out, options.scratch):
        return said(make_shards(options, tell))


def plan(options: Annotated[ShardsOptions, tyro.conf.arg(name="")]) -> int:
    """Say what `shards` would do: samples, shards, bytes, core-hours, rows that will fail."""
    import tempfile

    from pipeline.estimate import plan_lines, there_lines
    from pipeline.remote import reading
    from pipeline.settings import job_options, output_folder, wish

    with tempfile.TemporaryDirectory() as scratch, addresses_in(options.out, options.scratch):
        rows = wish(options, Path(scratch), say)
        say(*plan_lines(rows, job_options(options).limits, options.scratch or ""))
        if not options.overwrite:
            with reading(options.out or str(output_folder(options)), options.scratch) as out:
                tell(*there_lines(out, rows))
    return 0


def finalize(out: Out, /, partial: bool = False) -> int:
    """Write index, tables and report once the tasks of a job array are through.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        partial: write an index marked incomplete, so that training can start.
    """
    from pipeline.make import finalize_folder

    with folder_of(out) as folder:
        return said(finalize_folder(folder, partial=partial))


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
        max_error_rate: stop when more than this share fails, from 200 rows on; default: go on.
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
    with folder_of(out) as folder:
        return said(run_retry(folder, reason, job_options(wanted, stored_limits(folder)), tell))


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
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
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

    wanted = ShardsOptions(
        "folder", executor=executor, workers=workers, task=task, overwrite=overwrite
    )
    wish = FieldWish(field, mel_rate, features, table, column, from_source, overwrite)
    with folder_of(out) as folder:
        job = job_options(wanted, stored_limits(folder))
        return said(run_add_field(folder, wish, job, tell))
