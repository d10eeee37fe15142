"""Planning a manifest of two million rows, in a process of its own so that its memory is known.

`python -m bench.planning make ROWS FILE` generates the manifest, `... plan FILE FOLDER` plans it
and writes what it cost as JSON.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.goals import Measured
from bench.memory import peak_mib
from manifests import schema
from manifests.columns import table
from pipeline import PROFILES
from pipeline.prepare import Wish, prepare

ROWS = 2_000_000
PATTERN_ROWS = 10_000


def measure(rows: int) -> list[Measured]:
    """Seconds and memory of one plan."""
    with tempfile.TemporaryDirectory() as folder:
        manifest, out = Path(folder) / "manifest.parquet", Path(folder) / "out"
        _run("make", str(rows), str(manifest))
        facts = json.loads(_run("plan", str(manifest), str(out)))
    subject = f"{rows:,} rows"
    return [
        Measured("planning", subject, facts["cpu_seconds"], None, facts),
        Measured("planning memory", subject, facts["peak_mib"]),
    ]


def generated(rows: int, prefix: str = "clip_") -> pa.Table:
    """AVSpeech-like rows: one window a file, a point on the speaker, two splits.

    Args:
        rows: how many.
        prefix: of their names; rows with another one are others.
    """
    random = np.random.default_rng(0)
    seconds = random.uniform(3, 10, PATTERN_ROWS).round(2).tolist()
    points = random.uniform(0.2, 0.8, (PATTERN_ROWS, 2)).tolist()
    pattern = table(
        {
            "dataset": "avspeech",
            "key": "",
            "source_id": "",
            "group_id": "",
            "uri": "",
            "splits": ["avspeech:test" if number % 10 == 0 else "avspeech:train"],
            "face_xy": points[number],
            "expect": {"video": True, "audio": True, "duration_s": seconds[number]},
            "bytes": round(seconds[number] * 150_000),
        }
        for number in range(PATTERN_ROWS)
    )
    copies = pa.concat_tables([pattern] * -(-rows // PATTERN_ROWS)).slice(0, rows)
    return _with_names(copies, prefix)


def _with_names(rows: pa.Table, prefix: str) -> pa.Table:
    """The rows with names like those of YouTube clips: unique, in no order."""
    numbers = pa.array(np.random.default_rng(1).permutation(len(rows)))
    name = pc.binary_join_element_wise(prefix, pc.cast(numbers, pa.string()), "")
    columns = {
        "key": pc.binary_join_element_wise("avspeech/", name, ""),
        "source_id": name,
        "group_id": pc.binary_join_element_wise("youtube:", name, ""),
        "uri": pc.binary_join_element_wise("clips/", name, ".mp4", ""),
    }
    for column, values in columns.items():
        at = rows.schema.get_field_index(column)
        rows = rows.set_column(at, rows.schema.field(at), values)
    return rows


def write_generated(rows: int, path: Path) -> None:
    """The manifest as a file."""
    table_rows = generated(rows)
    schema.write(table_rows, path, labels=None, root=Path("/data"), fingerprint="", report={})


def plan(manifest: Path, out: Path) -> dict[str, float]:
    """Plan as `pipeline shards` does; what it cost."""
    started, cpu = time.monotonic(), time.process_time()
    wish = Wish(schema.read(manifest), "avspeech", "/data", "", (), PROFILES["loc"])
    prepared = prepare(out, wish)
    return {
        "wall_seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_mib": round(peak_mib(), 1),
        "shards": len(prepared.plan.shards),
    }


def _run(*arguments: str) -> str:
    command = [sys.executable, "-m", "bench.planning", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(arguments: list[str]) -> None:
    """One of the two steps."""
    step, first, second = arguments
    if step == "make":
        write_generated(int(first), Path(second))
    else:
        sys.stdout.write(json.dumps(plan(Path(first), Path(second))))


if __name__ == "__main__":
    main(sys.argv[1:])
