"""Commands about which clips should be used: drop, duplicates, leaks, offsets."""

from pathlib import Path
from typing import Annotated

import tyro

from manifests.text import say
from pipeline.commands.sets import Out, folder_of, folders_of, push, said, tell

Outs = Annotated[tuple[str, ...], tyro.conf.Positional]


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

    with folder_of(out) as folder:
        return said(run_drop(folder, Wanted(read_keys(keys), reason, purge, runs)))


def duplicates(outs: Outs, /, workers: int | None = None) -> int:
    """Find clips that are there more than once, also rescaled, recompressed, cut or mirrored.

    Writes pairs with their distances into OUT/quality/duplicates.parquet, and columns for --where:
    "duplicate_rank == 0" keeps one clip of each group. Nothing is removed.

    Args:
        outs: folders or addresses of shard sets, made with any profile.
        workers: processes; default: the usable cores.
    """
    from pipeline.duplicates import duplicates as run_duplicates
    from pipeline.host import usable_cores

    with folders_of(outs) as folders:
        tell(*run_duplicates(folders, workers=workers or usable_cores()))
        for out, folder in zip(outs, folders, strict=True):
            push(out, folder)
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
        outs: folders or addresses of shard sets, the one that is learned from first.
        table: where the pairs go; `train pretrain --without FILE` leaves their clips out.
        html: write a page with the pairs' pictures side by side.
        kinds: of likeness that count: exact near picture sound (content), source (the same file),
            group (the same speaker or source video).
        workers: processes; default: the usable cores.
    """
    from pipeline.elsewhere import require_outside, require_page
    from pipeline.host import usable_cores
    from pipeline.leakpage import write_page
    from pipeline.leaks import find_leaks, write_leaks

    with folders_of(outs) as folders:
        require_outside("--table", table, folders)
        if html is not None:
            require_page("--html", html, folders)
        found = find_leaks(folders, kinds, workers or usable_cores())
        write_leaks(found, table)
        advice = f"; to leave them out: train pretrain --without {table}" if found.found else ""
        tell(*found.lines(), f"Table: {table}{advice}")
        if html is not None:
            write_page(found, html)
            say(f"Page: {html}")
        for out, folder in zip(outs, folders, strict=True):
            push(out, folder)
    return 0


def offsets(out: Out, /) -> int:
    """Estimate by how much sound and picture of each clip are apart; columns for --where.

    From the mouth's opening where landmarks are stored, else from motion; av_offset_peak_ratio says
    how far the estimate can be believed.

    Args:
        out: folder of a shard set, or s3://bucket/set, gs://bucket/set.
    """
    from pipeline.offsets import offsets as run_offsets

    with folder_of(out) as folder:
        tell(*run_offsets(folder))
        push(out, folder)
    return 0
