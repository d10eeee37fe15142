"""Makes a small shard set by hand, without the job that writes shards and without any codec.

What looks at shards is tested against these sets. `fabricate` makes a whole OUT folder; `write_set`
writes samples that a test made itself.
"""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.columns import table
from pipeline import format as shard_format
from pipeline.config import ShardConfig, canonical_hash
from pipeline.index import ERRORS_SCHEMA, SAMPLES_SCHEMA
from pipeline.plan import fingerprint

Members = dict[str, bytes]
SOURCE_WIDTH, SOURCE_HEIGHT = 640, 480
VERSIONS = {"av": "18.1.0", "glav": "0.1.0"}


def make_members(
    config: ShardConfig, key: str, *, instance: int = 0, seconds: float = 2.0, face: bool = True
) -> Members:
    """One sample: a square that moves over a gradient, a rising tone, a face in the square."""
    frames = int(seconds * config.fps)
    rng = np.random.default_rng(instance)
    meta = _meta(config, key, instance, frames)
    members: Members = {}
    for name in config.members[1:]:
        kind = name.split(".")[0]
        track = int(kind.endswith("2"))
        here = face and track == 0
        if name.endswith(".mjpeg"):
            count = frames if here or kind == "frames" else 0
            jpegs = [_picture(config, kind, index, frames, rng) for index in range(count)]
            members[name], meta["jpeg_sizes"][kind] = shard_format.join_jpegs(jpegs)
        elif name.startswith("landmarks"):
            members[name] = shard_format.encode_npy(_landmarks(frames if here else 0))
        elif name == "mel.npy":
            members[name] = shard_format.encode_npy(_mel(frames, rng))
        elif name == "audio.flac":
            assert config.waveform_rate_hz is not None
            waveform = _tone(frames, config)
            members[name] = shard_format.encode_flac(waveform, config.waveform_rate_hz)
    if face and config.face_suffixes:
        meta["faces"] = [_track(frames)]
        meta["quality"]["face_rate"] = 1.0
    return {"json": shard_format.encode_json(meta), **members}


def fabricate(
    out: Path,
    config: ShardConfig,
    *,
    shards: int = 2,
    samples: int = 3,
    errors: int = 1,
    seconds: float = 2.0,
) -> Path:
    """A finished set: `shards` shards of `samples` samples and `errors` failed rows each."""
    contents: list[list[Members]] = []
    failures: list[list[dict[str, Any]]] = []
    for shard in range(shards):
        first = shard * samples
        contents.append(
            [
                make_members(
                    config,
                    f"demo/clip{first + i:03d}",
                    instance=first + i,
                    seconds=seconds,
                    face=i % 2 == 0,
                )
                for i in range(samples)
            ]
        )
        failures.append([failure(f"demo/bad{shard:03d}{i}") for i in range(errors)])
    return write_set(out, config, contents, failures)


def failure(key: str, reason: str = "no_audio") -> dict[str, Any]:
    """A row of the ledger's other half."""
    return {
        "key": key,
        "uri": f"{key}.mp4",
        "stage": "open",
        "reason": reason,
        "detail": "the file has no audio stream",
        "seconds": 0.01,
        "tries": 1,
    }


def write_set(
    out: Path,
    config: ShardConfig,
    contents: Sequence[Sequence[Members]],
    failures: Sequence[Sequence[dict[str, Any]]] = (),
    *,
    split: str = "train",
) -> Path:
    """A finished set of these samples, one list a shard."""
    (out / "shards").mkdir(parents=True)
    (out / "labels").mkdir()
    (out / "labels" / "demo.json").write_text("[]")
    config_hash = canonical_hash(config.as_dict())
    sidecars: list[dict[str, Any]] = []
    manifests: list[pa.Table] = []
    for number, samples in enumerate(contents):
        errors = list(failures[number]) if number < len(failures) else []
        rows = _manifest_rows(samples, errors)
        mark = fingerprint(rows, sum(map(len, manifests)), config_hash)
        manifests.append(rows)
        name = f"{split}-{number:06d}"
        sidecars.append(_write_shard(out, name, samples, errors, config_hash, mark))
    pq.write_table(pa.concat_tables(manifests), out / "manifest.parquet")
    _write_plan(out, config, config_hash, sidecars, split)
    write_index(out)
    return out


def _manifest_rows(samples: Sequence[Members], errors: Sequence[dict[str, Any]]) -> pa.Table:
    """The rows these samples and errors come from, with their `instance`."""
    metas = [json.loads(members["json"]) for members in samples]
    same = ("key", "dataset", "splits", "labels", "label_names", "transcript", "words", "segments")
    rows = [{name: meta[name] for name in same} | {"group_id": meta["group"]} for meta in metas]
    rows += [{"key": error["key"], "dataset": "demo"} for error in errors]
    instances = [meta["instance"] for meta in metas] + [None] * len(errors)
    return table(rows).append_column("instance", pa.array(instances, pa.int64()))


def _write_shard(
    out: Path,
    name: str,
    samples: Sequence[Members],
    errors: list[dict[str, Any]],
    config_hash: str,
    mark: str,
) -> dict[str, Any]:
    """One tar and its sidecar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entries = [_add_sample(tar, members) for members in samples]
    data = buffer.getvalue()
    (out / "shards" / f"{name}.tar").write_bytes(data)
    sidecar = {
        "schema": 1,
        "shard": name,
        "url": f"{name}.tar",
        "rows": len(samples) + len(errors),
        "nsamples": len(samples),
        "filesize": len(data),
        "md5": hashlib.md5(data).hexdigest(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "fingerprint": mark,
        "config_hash": config_hash,
        "versions": VERSIONS,
        "run": {"host": "node-a", "pid": 7, "started_unix": 1_700_000_000.0, "work_seconds": 4.0},
        "seconds": sum(entry["seconds"] for entry in entries),
        "samples": entries,
        "errors": errors,
    }
    (out / "shards" / f"{name}.json").write_text(json.dumps(sidecar, separators=(",", ":")))
    return sidecar


def write_index(out: Path) -> None:
    """The files written last, from the sidecars."""
    plan = json.loads((out / "plan.json").read_text())
    config = ShardConfig.from_dict(json.loads((out / "config.json").read_text())["config"])
    sidecars = [json.loads(path.read_text()) for path in sorted((out / "shards").glob("*.json"))]
    samples = [_sample_row(entry, car) for car in sidecars for entry in car["samples"]]
    errors = [
        {**error, "shard": car["shard"], "host": car["run"]["host"]}
        for car in sidecars
        for error in car["errors"]
    ]
    pq.write_table(pa.Table.from_pylist(samples, SAMPLES_SCHEMA), out / "samples.parquet")
    pq.write_table(pa.Table.from_pylist(errors, ERRORS_SCHEMA), out / "errors.parquet")
    done = len(samples) + len(errors)
    reasons = Counter(error["reason"] for error in errors)
    index = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": plan["name"],
        "shardlist": [_listed(car) for car in sidecars],
        "schema": 1,
        "complete": done == plan["planned_rows"],
        "dataset": plan["dataset"],
        "profile": plan["profile"],
        "config": config.as_dict(),
        "members": list(config.members),
        "config_hash": plan["config_hash"],
        "instances": plan["planned_rows"],
        "splits": {"demo:train": len(samples)},
        "labels": [],
        "counts": {
            "planned": plan["planned_rows"],
            "samples": len(samples),
            "errors": len(errors),
            "not_run": reasons["not_run"],
        },
        "reasons": dict(reasons),
        "seconds": round(sum(car["seconds"] for car in sidecars), 6),
    }
    (out / "shardindex.json").write_text(json.dumps(index))


def edit_json(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- pieces -----------------------------------------------------------------------------------


def _meta(config: ShardConfig, key: str, instance: int, frames: int) -> dict[str, Any]:
    fps = float(config.fps)
    pictures = frames if config.stores_frames else 0
    return {
        "schema": 1,
        "key": key,
        "dataset": "demo",
        "instance": instance,
        "group": f"demo:{instance // 2}",
        "splits": ["demo:train"],
        "labels": [instance % 2],
        "label_names": [["bell", "drum"][instance % 2]],
        "transcript": "bin blue",
        "words": [
            {"w": "bin", "start_s": 0.2, "end_s": 0.6},
            {"w": "blue", "start_s": 0.6, "end_s": 1.1},
        ],
        "segments": [{"label": 1, "start_s": 0.0, "end_s": 1.0}],
        "fps": f"{config.fps.numerator}/{config.fps.denominator}",
        "t0": 0.5,
        "window_start": 0.5,
        "frames": frames,
        "pts": [round(0.5 + index / fps, 6) for index in range(pictures)],
        "held": [],
        "padded": [],
        "mel_rate_hz": config.mel_rate_hz,
        "waveform_rate_hz": config.waveform_rate_hz,
        "waveform_channels": config.waveform_channels,
        "source": {
            "uri": f"{key}.mp4",
            "container": "mov,mp4",
            "video_codec": "h264",
            "audio_codec": "aac",
            "width": SOURCE_WIDTH,
            "height": SOURCE_HEIGHT,
            "fps": 25.0,
            "vfr": False,
            "rotation": 0,
            "bad_packets": 0,
        },
        "jpeg_sizes": {},
        "frame_size": _frame_size(config) if config.stores_frames else None,
        "faces": [],
        "quality": {
            "luma": 88.1,
            "motion": 2.3 + instance,
            "audio_dbfs": -21.0 - instance,
            "silent": False,
            "static": False,
            "black": False,
            "clipped": 0.0,
            "face_rate": 0.0,
        },
        "truth": {"boxes": []},
        "extra": {},
    }


def _frame_size(config: ShardConfig) -> list[int]:
    assert config.short_side is not None
    return [config.short_side * SOURCE_WIDTH // SOURCE_HEIGHT, config.short_side]


def _picture(
    config: ShardConfig, kind: str, index: int, frames: int, rng: np.random.Generator
) -> bytes:
    width, height = _frame_size(config) if kind == "frames" else [config.crop_size] * 2
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(30, 200, width)[None]
    picture[..., 1] = np.linspace(60, 160, height)[:, None]
    picture[..., 2] = rng.integers(90, 110)
    left = int((width - width // 4) * index / max(frames - 1, 1))
    picture[height // 3 : height // 3 * 2, left : left + width // 4] = 230
    return shard_format.encode_jpeg(picture, config.jpeg_quality)


def _landmarks(frames: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    angle = np.linspace(0, 2 * np.pi, shard_format.N_LANDMARKS, endpoint=False)
    shape = np.stack([300 + 60 * np.cos(angle), 200 + 80 * np.sin(angle)], 1)
    return np.repeat(shape[None], frames, 0).astype(np.float32)


def _mel(frames: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float16]]:
    slices = shard_format.MEL_SLICES_PER_FRAME * frames
    mel = rng.normal(-8, 0.5, (shard_format.N_MELS, slices))
    band = np.linspace(10, 60, slices).astype(int)
    mel[band, np.arange(slices)] = 2.0
    return mel.astype(np.float16)


def _tone(frames: int, config: ShardConfig) -> np.ndarray[Any, np.dtype[np.float32]]:
    rate = config.waveform_rate_hz or 1
    time = np.arange(int(frames * rate / config.fps)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    return np.repeat(tone[:, None], config.waveform_channels, 1).astype(np.float32)


def _track(frames: int) -> dict[str, Any]:
    return {
        "track": 0,
        "box": [[230, 110, 370, 290]] * frames,
        "score": [1.1] * frames,
        "state": ["detected"] * frames,
        "face_transform": [[[0.9, 0, -80], [0, 0.9, -90]]] * frames,
        "lip_transform": [[[0.9, 0, -80], [0, 0.9, -90]]] * frames,
        "chosen_by": "largest",
    }


def _add_sample(tar: tarfile.TarFile, members: Mapping[str, bytes]) -> dict[str, Any]:
    meta = json.loads(members["json"])
    base = shard_format.base_name(meta["key"])
    start, places = tar.offset, {}
    for extension, data in members.items():
        entry = tarfile.TarInfo(f"{base}.{extension}")
        entry.size = len(data)
        places[extension] = [tar.offset + 512, len(data)]
        tar.addfile(entry, io.BytesIO(data))
    numerator, denominator = map(int, meta["fps"].split("/"))
    return {
        **{name: meta[name] for name in ("key", "instance", "group", "splits", "labels", "frames")},
        **{name: meta[name] for name in ("quality", "source")},
        "base": base,
        "seconds": meta["frames"] * denominator / numerator,
        "offset": start,
        "size": tar.offset - start,
        "members": places,
    }


def _write_plan(
    out: Path, config: ShardConfig, config_hash: str, sidecars: list[dict[str, Any]], split: str
) -> None:
    names = ("rows", "seconds", "fingerprint")
    firsts = accumulate((car["rows"] for car in sidecars), initial=0)
    shards = [
        {"name": car["shard"], "first_row": first, **{name: car[name] for name in names}}
        for car, first in zip(sidecars, firsts, strict=False)
    ]
    rows = sum(car["rows"] for car in sidecars)
    part = {"name": split, "split_label": split, "first_row": 0, "first_instance": 0}
    plan = {
        "schema": 1,
        "dataset": "demo",
        "profile": config.profile,
        "name": f"demo-{config.profile}",
        "config_hash": config_hash,
        "manifest_root": "raw/demo",
        "planned_rows": rows,
        "seconds_per_shard": 1000.0,
        "parts": [{**part, "rows": rows, "shards": shards}],
    }
    (out / "plan.json").write_text(json.dumps(plan))
    stored = {
        "config": config.as_dict(),
        "config_hash": config_hash,
        "landmarks_sha256": "0" * 64,
        "versions": VERSIONS,
    }
    (out / "config.json").write_text(json.dumps(stored))


def _listed(sidecar: dict[str, Any]) -> dict[str, Any]:
    names = ("nsamples", "sha256", "filesize", "seconds")
    return {
        "url": f"shards/{sidecar['url']}",
        "md5sum": sidecar["md5"],
        "part": sidecar["shard"].split("-")[0],
        **{name: sidecar[name] for name in names},
    }


def _sample_row(entry: dict[str, Any], sidecar: dict[str, Any]) -> dict[str, Any]:
    names = ("key", "base", "offset", "size", "instance", "group", "splits", "labels", "frames")
    source = entry["source"]
    return {
        **{name: entry[name] for name in names},
        "shard": sidecar["shard"],
        "seconds": entry["seconds"],
        "fps": entry["frames"] / entry["seconds"],
        "uri": source["uri"],
        "source_width": source["width"],
        "source_height": source["height"],
        "source_fps": source["fps"],
        **entry["quality"],
    }
