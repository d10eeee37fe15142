"""What a shard costs beside the work on its clips: planning's rows, Ray, commit, ledger.

A job whose clips are all missing does everything but decode. Two sizes of it, and the difference is
the cost of a shard without that of a start. `python -m bench.cluster EXECUTOR SHARDS` runs one job
and prints the CPU seconds of its process and of all that came from it, Ray's included.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from bench import planning, workers
from bench.goals import Measured
from bench.media import Media
from pipeline import PROFILES, executors, job
from pipeline.job import JobOptions
from pipeline.prepare import Wish, prepare

CLIPS_A_SHARD = 100
FEW, MANY = 5, 25


def measure(media: Media, rounds: int) -> list[Measured]:
    """The share of a shard's overhead in the work on 100 clips like this one."""
    with workers.one_sandbox() as sandbox:
        workers.make(sandbox, media.path)
        clip = min(workers.work([sandbox], media.path, 2)[0] / 2 for _ in range(rounds))
    seconds = {name: _a_shard(name, rounds) for name in ("local", "ray")}
    facts = {"cpu_seconds_a_shard": seconds, "cpu_seconds_a_clip": clip}
    share = 100 * seconds["ray"] / (CLIPS_A_SHARD * clip)
    return [Measured("cluster", f"{CLIPS_A_SHARD} x {media.name}", share, None, facts)]


def _a_shard(executor: str, rounds: int) -> float:
    """CPU seconds a shard; other work on the machine only ever adds to a round."""
    few, many = (min(_job(executor, count) for _ in range(rounds)) for count in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def _job(executor: str, shards: int) -> float:
    command = [sys.executable, "-m", "bench.cluster", executor, str(shards)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout))


def run(executor: str, shards: int) -> float:
    """CPU seconds of a job over so many shards of 100 missing clips, its preparation left out."""
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "raw", Path(folder) / "out"
        root.mkdir()
        rows = _alike(planning.generated(shards * CLIPS_A_SHARD))
        wish = Wish(rows, "avspeech", str(root), "", (), PROFILES["loc"], CLIPS_A_SHARD * 5.0)
        prepared = prepare(out, wish)
        spent: list[float] = []
        before = _tree_cpu_seconds()
        with _counted(spent):
            result = job.run(prepared, JobOptions(executor, workers=2, max_error_rate=1))
    if result.stopped or result.made != shards or result.rows != shards * CLIPS_A_SHARD:
        raise RuntimeError(f"{result}: expected {shards} shards of {CLIPS_A_SHARD} clips")
    return spent[0] - before


def _alike(rows: pa.Table) -> pa.Table:
    """The same with five seconds each in one split, so that every shard has as many."""
    facts = [{**row, "duration_s": 5.0} for row in rows["expect"].to_pylist()]
    for name, values in (("expect", facts), ("splits", [["avspeech:train"]] * len(rows))):
        at = rows.schema.get_field_index(name)
        kind = rows.schema.field(at)
        rows = rows.set_column(at, kind, pa.array(values, kind.type))
    return rows


@contextlib.contextmanager
def _counted(spent: list[float]) -> Iterator[None]:
    """Add up what was spent before a job's executor ends and its processes are gone."""
    really = executors.executor

    @contextlib.contextmanager
    def counting(*arguments: Any) -> Iterator[executors.Executor]:
        with really(*arguments) as pool:
            yield pool
            spent.append(_tree_cpu_seconds())

    setattr(job, "executor", counting)  # noqa: B010
    try:
        yield
    finally:
        setattr(job, "executor", really)  # noqa: B010


def _tree_cpu_seconds() -> float:
    me = psutil.Process()
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
