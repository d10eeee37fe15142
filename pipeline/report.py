"""OUT/report.html: what a shard set holds, what it lacks and why, and what its samples look like.

Reads the plan, the index, the sidecars and the two tables; one column is in memory at a time. The
gallery takes its cards from `pipeline.cards`, as `peek` does.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.account import account_of
from pipeline.cards import CardLimits
from pipeline.charts import Chart, bars, histogram
from pipeline.errors import Reason
from pipeline.listen import SoundOf
from pipeline.outputs import Outputs, Place, reading_table
from pipeline.pages import render
from pipeline.peek import cards_of, write_text
from pipeline.status import Status, status
from pipeline.units import bytes_text, time_text
from pipeline.view import SetView, rows_by_split

GALLERY = 6
GALLERY_LIMITS = CardLimits(seconds=12, picture_bytes=2 << 20)
EXAMPLES = 3
CANDIDATES_PER_BATCH = 64
BATCH_ROWS = 1 << 14
FACE_RATE_SHOWN = 0.5


@dataclass
class Split:
    """One row of the table of splits."""

    name: str
    samples: int = 0
    seconds: float = 0.0
    faces: int = 0
    """Samples with a face in some frame."""

    @property
    def length(self) -> str:
        """Seconds as a person says them."""
        return time_text(self.seconds)


@dataclass
class Failures:
    """Rows that failed for one reason."""

    reason: str
    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


def write_report(
    out: Path, *, sound_of: SoundOf | None = None, view: SetView | None = None
) -> Path:
    """Write OUT/report.html.

    Args:
        out: a finished set; with `pipeline finalize --partial` also an unfinished one.
        sound_of: the source's sound for a sample's JSON, where the source is at hand.
        view: counts of `--where` to show, too.

    Returns:
        The path of the page.

    Raises:
        NotFinishedError: index or tables are not there yet.
    """
    outputs = Outputs(out)
    index, state = outputs.index(), status(out)
    failures, not_run = _failures(outputs.errors_path)
    dropped = len(account_of(out, outputs.plan).dropped)
    cards, unreadable = cards_of(outputs, gallery(outputs), GALLERY_LIMITS, sound_of)
    page = render(
        "report.html",
        title=outputs.plan.name,
        plan=outputs.plan,
        complete=bool(index.get("complete")),
        tiles=_tiles(state, failures),
        ledger=_ledger(outputs.plan.planned_rows, state.samples, failures, not_run, dropped),
        splits=_splits(outputs.samples_path),
        view=view,
        failures=failures,
        charts=_charts(outputs.samples_path, failures, index.get("labels") or []),
        config=_config_rows(outputs),
        versions=sorted(outputs.stored_config.get("versions", {}).items()),
        members=outputs.config.members,
        fields=state.fields,
        first_shard=outputs.plan.shards[0].name if outputs.plan.shards else "train-000000",
        cards=cards,
        unreadable=unreadable,
    )
    write_text(outputs.report_path, page)
    return outputs.report_path


# --- numbers ----------------------------------------------------------------------------------


def _tiles(state: Status, failures: list[Failures]) -> list[tuple[str, str]]:
    speed = state.seconds / state.wall_seconds if state.wall_seconds else None
    failed = sum(f.count for f in failures)
    return [
        (f"{state.samples:,}", "samples"),
        (f"{failed:,}", "rows that failed"),
        (time_text(state.seconds), "stored"),
        (bytes_text(state.filesize), f"in {state.shards:,} shards"),
        (f"{speed:.1f} x" if speed else "unknown", "real time while shards were made"),
        (time_text(state.work_seconds), "of work, all processes"),
    ]


def _ledger(
    planned: int, samples: int, failures: list[Failures], not_run: int, dropped: int
) -> dict[str, Any]:
    """Both sides of planned = samples + errors + not run + dropped, as the terminal says them.

    Args:
        planned: all rows of the manifest, those that `--limit` left out included.
        samples: in committed shards.
        failures: rows that failed.
        not_run: rows nobody has tried.
        dropped: rows that were taken back.
    """
    errors = sum(f.count for f in failures)
    parts = [("good", samples), ("bad-fill", errors), ("waiting", not_run), ("gone", dropped)]
    return {
        "planned": planned,
        "samples": samples,
        "errors": errors,
        "not_run": not_run,
        "dropped": dropped,
        "closes": planned == samples + errors + not_run + dropped,
        "bar": [(kind, 100 * count / max(1, planned)) for kind, count in parts if count],
    }


def _splits(path: Path) -> list[Split]:
    """Samples and hours by split; a sample counts in each of its splits, or in `(none)`."""
    splits: dict[str, Split] = {}

    def add(name: str, seconds: npt.NDArray[np.float64], faces: npt.NDArray[np.bool_]) -> None:
        split = splits.setdefault(name, Split(name))
        split.samples += len(seconds)
        split.seconds += float(seconds.sum())
        split.faces += int(faces.sum())

    for batch in _batches(path, ["splits", "seconds", "face_rate"]):
        lists, seconds = batch.column("splits"), _numbers(batch.column("seconds"))
        faces = np.nan_to_num(_numbers(batch.column("face_rate"))) > 0
        for name, rows in rows_by_split(lists):
            add(name, seconds[rows], faces[rows])
    return sorted(splits.values(), key=lambda split: split.name)


def _failures(path: Path) -> tuple[list[Failures], int]:
    """Failed rows by reason, the most frequent first, with a few examples; rows never tried."""
    found: dict[str, Failures] = {}
    not_run = 0
    for batch in _batches(path, ["key", "uri", "stage", "reason", "detail"]):
        for row in batch.to_pylist():
            if row["reason"] == Reason.NOT_RUN:
                not_run += 1
                continue
            failures = found.setdefault(row["reason"], Failures(row["reason"]))
            failures.count += 1
            if len(failures.examples) < EXAMPLES:
                failures.examples.append(row)
    return sorted(found.values(), key=lambda failures: -failures.count), not_run


def _config_rows(outputs: Outputs) -> list[tuple[str, str]]:
    rows = [(name, str(value)) for name, value in outputs.config.as_dict().items()]
    landmarks = outputs.stored_config.get("landmarks_sha256")
    return [
        *rows,
        ("config_hash", outputs.plan.config_hash),
        *([("landmarks_sha256", str(landmarks))] if landmarks else []),
    ]


# --- pictures ---------------------------------------------------------------------------------


def _charts(path: Path, failures: list[Failures], names: list[str]) -> list[Chart]:
    face_rate = 100 * _column(path, "face_rate")
    charts = [
        histogram("Length", _column(path, "seconds"), " s"),
        histogram("Frame rate of the sources", _column(path, "source_fps"), " fps", range(66)),
        _resolutions(path),
        histogram("Loudness", _column(path, "audio_dbfs"), " dB", range(-80, 1, 2)),
        histogram("Frames with a face", face_rate, " %", list(np.linspace(0, 100, 41))),
        histogram("Motion: change of a pixel, of 255", _column(path, "motion"), ""),
        histogram("Brightness, of 255", _column(path, "luma"), "", list(np.linspace(0, 255, 52))),
        bars("Labels", _labels(path, names)),
        bars("Rows that failed", {failed.reason: failed.count for failed in failures}),
    ]
    return [chart for chart in charts if chart is not None]


def _labels(path: Path, names: list[str]) -> dict[str, int]:
    """Samples by label: its name where the index lists names, its number elsewhere."""
    counts: Counter[str] = Counter()
    for batch in _batches(path, ["labels"]):
        for found in pc.value_counts(pc.list_flatten(batch.column(0))).to_pylist():
            number = found["values"]
            name = names[number] if 0 <= number < len(names) else number
            counts[str(name)] += found["counts"]
    return dict(counts)


def _resolutions(path: Path) -> Chart | None:
    counts: Counter[tuple[int, int]] = Counter()
    for batch in _batches(path, ["source_width", "source_height"]):
        width, height = (_numbers(column) for column in batch.columns)
        known = np.isfinite(width) & np.isfinite(height)
        sizes = np.stack([width[known], height[known]], 1).astype(int)
        values, times = np.unique(sizes, axis=0, return_counts=True)
        counts.update({(int(w), int(h)): int(n) for (w, h), n in zip(values, times, strict=True)})
    return bars("Size of the sources", {f"{w} x {h}": n for (w, h), n in counts.items()})


def gallery(outputs: Outputs, count: int = GALLERY) -> list[Place]:
    """Samples from all over the set: unlike labels and splits, half of them with a face."""
    columns = ["key", "shard", "offset", "size", "splits", "labels", "face_rate"]
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, bool, Place]] = []
    for batch in _batches(outputs.samples_path, columns):
        step = max(1, batch.num_rows // CANDIDATES_PER_BATCH)
        for row in batch.take(pa.array(range(0, batch.num_rows, step))).to_pylist():
            kind = f"{row['splits'][:1]} {row['labels'][:1]}"
            place = Place(row["key"], row["shard"], row["offset"], row["size"])
            ranked.append((seen[kind], (row["face_rate"] or 0) >= FACE_RATE_SHOWN, place))
            seen[kind] += 1
    ranked.sort(key=lambda item: item[0])
    faces = list(islice((place for _, face, place in ranked if face), count // 2))
    others = (place for _, face, place in ranked if not face)
    chosen = [*faces, *islice(others, count - len(faces))]
    rest = (place for _, _, place in ranked if place not in chosen)
    return [*chosen, *islice(rest, count - len(chosen))]


# --- columns ----------------------------------------------------------------------------------


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    if path.is_file():
        with reading_table(path), pq.ParquetFile(path) as file:
            known = [name for name in columns if name in file.schema_arrow.names]
            if len(known) == len(columns):
                yield from file.iter_batches(BATCH_ROWS, columns=columns)


def _column(path: Path, name: str) -> npt.NDArray[np.float64]:
    return np.concatenate([np.empty(0), *(_numbers(b.column(0)) for b in _batches(path, [name]))])


def _numbers(column: pa.Array) -> npt.NDArray[np.float64]:
    """As floats, NaN where there is none."""
    numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.asarray(numbers, np.float64)
