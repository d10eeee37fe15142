"""A set of 20,000 shards and two million samples: what it costs to go on with it and to look at it.

The sidecars are generated, as the job would have left them, and the tars are small: what is
measured goes by plan and sidecars. Every step runs in a process of its own, so that its memory is
known: `python -m bench.growing STEP FOLDER`, after `make` in the same folder.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench import planning
from bench.goals import Measured
from bench.memory import peak_mib
from manifests import schema
from pipeline import PROFILES
from pipeline.plan import PlannedShard
from pipeline.prepare import Prepared, Wish, load, prepare

ROWS = 2_000_000
ROWS_A_SHARD = 100
MEAN_SECONDS = 6.5
"""Of the clips that `planning.generated` makes."""
LATER_ROWS = 1_000
GROWN = "grown.parquet"
FAILED_EVERY = 50
SAMPLE_BYTES = 1_024
"""Of each sample in its tar; its place is listed, its bytes are zeros."""


def measure(rows: int) -> Iterator[Measured]:
    """CPU seconds and peak memory of each step."""
    with tempfile.TemporaryDirectory(prefix="glav-bench-") as folder:
        made = json.loads(_run("make", folder, str(rows)))
        subject = f"{made['shards']:,} shards, {rows:,} rows"
        for step in STEPS:
            facts = json.loads(_run(step, folder))
            yield Measured(f"scale {step}", subject, facts["cpu_seconds"], None, facts)
            yield Measured(f"scale {step} memory", subject, facts["peak_mib"])


# --- the set ----------------------------------------------------------------------------------


def make(out: Path, rows: int) -> dict[str, int]:
    """A planned folder with every shard committed."""
    prepared = prepare(out, _wish(planning.generated(rows)))
    for shard in prepared.plan.shards:
        _commit(prepared, shard)
    write_grown(out, rows)
    return {"shards": len(prepared.plan.shards)}


def write_grown(out: Path, rows: int) -> None:
    """The manifest of later: the same rows, and some that came since."""
    grown = pa.concat_tables([planning.generated(rows), planning.generated(LATER_ROWS, "late_")])
    schema.write(grown, out / GROWN, labels=None, root=Path("/data"), fingerprint="", report={})


def _wish(rows: pa.Table) -> Wish:
    seconds = ROWS_A_SHARD * MEAN_SECONDS
    return Wish(rows, "avspeech", "/data", "", (), PROFILES["loc"], seconds)


def _commit(prepared: Prepared, shard: PlannedShard) -> None:
    """A sidecar, and a tar of the size it names."""
    columns = ["key", "uri", "group_id", "splits", "instance", "planned_seconds"]
    rows = prepared.rows.of_shard(shard, columns).to_pylist()
    good = [row for row in rows if row["instance"] % FAILED_EVERY]
    samples = [_sample(row, number) for number, row in enumerate(good)]
    size = len(samples) * SAMPLE_BYTES
    sidecar = {
        "schema": 1, "shard": shard.name, "url": f"{shard.name}.tar", "rows": shard.rows,
        "nsamples": len(samples), "filesize": size, "md5": "0" * 32,
        "sha256": _sha256_of_zeros(size), "fingerprint": shard.fingerprint,
        "config_hash": prepared.config_hash, "versions": {},
        "run": {"host": "node", "pid": 1, "started_unix": time.time(), "work_seconds": 60.0},
        "seconds": round(sum(sample["seconds"] for sample in samples), 6), "samples": samples,
        "errors": [_error(row) for row in rows if not row["instance"] % FAILED_EVERY],
    }  # fmt: skip
    folder = prepared.out / "shards"
    with (folder / f"{shard.name}.tar").open("wb") as tar:
        tar.truncate(size)
    (folder / f"{shard.name}.json").write_text(json.dumps(sidecar, separators=(",", ":")))


def _sample(row: dict[str, Any], number: int) -> dict[str, Any]:
    """What the job keeps of one sample."""
    frames = int(10 * row["planned_seconds"])
    offset = number * SAMPLE_BYTES
    places = {name: [offset + 512, 100] for name in ("json", "frames.mjpeg", "mel.npy")}
    return {
        "key": row["key"], "instance": row["instance"], "splits": row["splits"], "labels": [],
        "base": row["key"].replace("/", "--"), "group": row["group_id"], "offset": offset,
        "size": SAMPLE_BYTES, "members": places, "frames": frames,
        "quality": {"luma": 116.61, "motion": 5.1, "static": False, "black": False,
                    "audio_dbfs": -21.11, "silent": False, "clipped": 0.0, "face_rate": None},
        "source": {"uri": row["uri"], "bytes": 900_000, "sha1": "0" * 40, "container": "mov",
                   "video_codec": "h264", "audio_codec": "aac", "width": 640, "height": 360,
                   "fps": 25.0, "vfr": False, "rotation": 0, "video_start": 0.0,
                   "audio_start": 0.0, "duration": row["planned_seconds"], "bad_packets": 0},
        "seconds": frames / 10,
    }  # fmt: skip


def _error(row: dict[str, Any]) -> dict[str, Any]:
    about = {"stage": "path", "reason": "missing_file", "detail": "no file below the root"}
    return {"key": row["key"], "uri": row["uri"], **about, "seconds": 0.01, "tries": 1}


def _sha256_of_zeros(size: int) -> str:
    return hashlib.sha256(bytes(size)).hexdigest()


# --- the steps ----------------------------------------------------------------------------------


def resume(out: Path) -> object:
    """Find out that there is nothing to make."""
    prepared = load(out)
    missing = [shard for shard in prepared.plan.shards if not prepared.is_made(shard)]
    assert not missing
    return missing


def index(out: Path) -> object:
    """Index, tables and ledger."""
    from pipeline.index import finalize

    ledger = finalize(load(out), partial=False)
    assert ledger.closes
    return ledger


def status(out: Path) -> object:
    """`pipeline status`."""
    from pipeline.status import status as read_status

    return read_status(out)


def verify(out: Path) -> object:
    """`pipeline verify` with one worker; hashing the small tars costs little."""
    from pipeline.verify import verify as run_verify

    verdict = run_verify(out, progress=None)
    assert not verdict.exit_code, verdict.lines()
    return verdict


def report(out: Path) -> object:
    """Everything of report.html that goes through the tables; the tars hold no pictures."""
    from pipeline.report import write_report

    return write_report(out)


def errors(out: Path) -> object:
    """`pipeline errors`."""
    from pipeline.summary import error_lines

    return error_lines(out, None, 20)


def retry(out: Path) -> object:
    """Plan the patches of a retry; making them costs what their clips cost."""
    from pipeline.retry import failed_keys, with_patches

    prepared = load(out)
    return with_patches(prepared, failed_keys(prepared, "missing_file"))


def open_index(out: Path) -> object:
    """What a trainer does before the first batch."""
    from stores.local import LocalStore
    from train.index import open_shards

    return open_shards(LocalStore(out))


def append(out: Path) -> object:
    """Plan rows that came later; no shard is touched."""
    before = load(out).plan
    grown = prepare(out, _wish(schema.read(out / GROWN))).plan
    assert grown.parts[: len(before.parts)] == before.parts
    assert grown.planned_rows == before.planned_rows + LATER_ROWS
    return grown


STEPS: dict[str, Callable[[Path], object]] = {
    "resume": resume,
    "index": index,
    "status": status,
    "errors": errors,
    "verify": verify,
    "report": report,
    "retry": retry,
    "open": open_index,
    "append": append,
}
"""In this order: what changes the set comes last."""


def _measured(step: str, out: Path) -> dict[str, float]:
    started, cpu = time.monotonic(), time.process_time()
    STEPS[step](out)
    return {
        "wall_seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_mib": round(peak_mib(), 1),
    }


def _run(*arguments: str) -> str:
    command = [sys.executable, "-m", "bench.growing", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main(arguments: list[str]) -> None:
    """One step."""
    step, folder = arguments[0], Path(arguments[1])
    facts = make(folder, int(arguments[2])) if step == "make" else _measured(step, folder)
    sys.stdout.write(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1:])
