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
    clips = f"{len(keys)} clip{'s'[: len(keys) != 1]}"
    if not found:
        return [f"no run in {runs} was trained on any of the {clips}"]
    return [f"runs in {runs} that saw of the {clips}:", *(f"  {line}" for line in found)]


def _trained(runs: Path, keys: frozenset[str]) -> Iterator[str]:
    wanted = pa.array(sorted(keys), pa.string())
    for path in sorted(runs.glob(f"*/{CLIPS}")):
        try:
            clips = pq.read_table(path, columns=["set", "key"])
        except (pa.ArrowException, OSError) as error:
            yield f"{path.parent.name}: {path} cannot be read ({plain_text(str(error))})"
            continue
        seen = pc.value_counts(clips.filter(pc.is_in(clips["key"], wanted))["set"]).to_pylist()
        for one in seen:
            kept = len(list((path.parent / "checkpoints").glob("*.pt")))
            yield (
                f"{path.parent.name}: trained on {one['counts']} of them, in {one['values']}; "
                f"{kept} checkpoints"
            )


def _evaluated(runs: Path, out: Path) -> Iterator[str]:
    """Evaluations over the set: heads may be trained on the clips, features are of them."""
    for path in sorted(runs.glob("*/eval/*/result.json")):
        try:
            told = json.loads(path.read_bytes())["shards"]["path"]
            same = Path(told).resolve() == out.resolve()
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another version's, or not finished
        if same:
            yield (
                f"{path.parents[2].name}: {path.parent.name} was evaluated on this set; features "
                f"of its clips may lie in {path.parents[1] / 'features'}"
            )
