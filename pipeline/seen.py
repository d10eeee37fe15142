"""Which training runs saw some clips: asked when somebody takes clips back.

    RUN/clips.parquet              the clips a run was trained on (set, key, instance)
    RUN/eval/TASK/result.json      an evaluation, which names its shard sets by path, no clips

The files are only read: what a run made of the clips (weights, features) is its owner's to remove.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import plain_text
from pipeline.mirror import address_of
from pipeline.outputs import Outputs
from pipeline.units import counted
from stores import is_remote

CLIPS = "clips.parquet"


def lines_about_runs(runs: Path, out: Path, keys: frozenset[str]) -> list[str]:
    """Sentences for the terminal: every run that trained on one of the clips, or may have seen it.

    Args:
        runs: folder with a folder for each run.
        out: the shard set the clips are taken from.
        keys: of the clips.
    """
    if not runs.is_dir():
        return [f"{runs} is no folder, so no run was looked through; name yours with --runs"]
    found = [*_trained(runs, keys), *_evaluated(runs, out)]
    clips = counted(len(keys), "clip")
    if not found:
        return [f"no run in {runs} was trained on any of the {clips}"]
    return [f"runs in {runs} that saw of the {clips}:", *(f"  {line}" for line in found)]


def _trained(runs: Path, keys: frozenset[str]) -> Iterator[str]:
    wanted = pa.array(sorted(keys), pa.string())
    for path in sorted(runs.glob(f"*/{CLIPS}")):
        try:
            clips = pq.read_table(path, columns=["set", "key"])
        except (pa.ArrowException, OSError) as error:
            yield _unread(path.parent, path, error)
            continue
        seen = pc.value_counts(clips.filter(pc.is_in(clips["key"], wanted))["set"]).to_pylist()
        for one in seen:
            kept = len(list((path.parent / "checkpoints").glob("*.pt")))
            yield (
                f"{path.parent.name}: trained on {one['counts']} of them, in {one['values']}; "
                f"{counted(kept, 'checkpoint')}"
            )


def _evaluated(runs: Path, out: Path) -> Iterator[str]:
    """Evaluations over the set: heads may be trained on the clips, features are of them."""
    here, name = address_of(out) or _place(str(out)), Outputs(out).plan.name
    for path in sorted(runs.glob("*/eval/*/result.json")):
        run = path.parents[2]
        try:
            shards = json.loads(path.read_bytes())["shards"]
            there, same_name = _place(shards["path"]), shards["name"] == name
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            yield _unread(run, path, error)
            continue
        is_copy = same_name and is_remote(there) != is_remote(here)
        if there == here or is_copy:
            of = f"{there}, which this set may be a copy of" if is_copy else "this set"
            yield (
                f"{run.name}: {path.parent.name} was evaluated on {of}; features of its clips may "
                f"lie in {path.parents[1] / 'features'}"
            )


def _place(address: str) -> str:
    """Where a set lies, written in one way: an address, or an absolute path."""
    return address.rstrip("/") if is_remote(address) else str(Path(address).resolve())


def _unread(run: Path, path: Path, error: Exception) -> str:
    """A run of which nobody knows whether it saw the clips."""
    why = plain_text(f"{type(error).__name__}: {error}")
    return f"{run.name}: {path} cannot be read ({why}), so it may have seen some: look yourself"
