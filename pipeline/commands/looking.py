"""Commands that look at a set or this machine: status, verify, peek, errors, report, doctor."""

import json
from pathlib import Path
from typing import Annotated

import tyro

from manifests.text import say
from pipeline.commands.sets import Out, folder_of, push, tell


def status(out: Out, /, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """Say how far a shard set is, from its sidecars alone.

    Exits 0 for an unfinished set, too; `verify` exits 3 there, and `--json` has the counts.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        as_json: machine-readable.
    """
    from pipeline.status import status as read_status, status_lines

    with folder_of(out) as folder:
        state = read_status(folder)
        tell(*([json.dumps(state.as_dict())] if as_json else status_lines(state)))
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

    with folder_of(out) as folder:
        verdict = run_verify(folder, deep, workers=workers or usable_cores())
        tell(*verdict.lines())
    return int(verdict.exit_code)


def peek(
    out: Out,
    keys: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    /,
    html: Path | None = None,
    picture: Path | None = None,
    count: int = 8,
    where: str | None = None,
) -> int:
    """Show samples: frames, face, lips, mel and sound in step.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        keys: which samples; default: some, spread over the set.
        html: write one self-contained page instead of a summary.
        picture: draw one sample on a time axis, into a .png, .pdf, .svg or the like.
        count: how many samples when no key is given.
        where: of those that pass, such as "silent or static"; see `report`.
    """
    from pipeline.peek import peek as run_peek
    from pipeline.playback import source_sound_of

    with folder_of(out) as folder:
        sound_of = source_sound_of(folder)
        wanted = list(keys)
        lines = run_peek(folder, wanted, html=html, picture=picture, count=count, where=where,
                         sound_of=sound_of)  # fmt: skip
        tell(*lines)
    return 0


def errors(out: Out, /, reason: str | None = None, most: int = 20) -> int:
    """Say why rows have no sample.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        reason: only this reason.
        most: how many rows to list.
    """
    from pipeline.summary import error_lines

    with folder_of(out) as folder:
        tell(*error_lines(folder, reason, most))
    return 0


def report(out: Out, /, where: str | None = None) -> int:
    """Write the report page of a shard set again; count the clips that a condition lets pass.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
        where: such as "silent == false and face_rate > 0.8", over the columns of samples.parquet
            and those that `duplicates` and `offsets` add; as `train pretrain --where` reads it.
    """
    from pipeline.make import write_page
    from pipeline.view import view_lines, view_of

    with folder_of(out) as folder:
        view = None if where is None else view_of(folder, where)
        tell(*(view_lines(view) if view else ()), f"Report: {write_page(folder, view)}")
        push(out, folder)
    return 0


def doctor() -> int:
    """Check libraries, model files, codecs, Ray and disk; say what is missing and how to get it."""
    from pipeline.doctor import doctor as run_doctor

    findings = run_doctor()
    say(*findings.lines())
    return int(findings.exit_code)
