"""Stored samples -> the members of a field; runs in the child, where a crash costs one sample.

Nothing that is stored is decoded again but what the field is made of: crops and landmarks come from
`frames.mjpeg`, as sharp as that is, or from the source file where the user asks for it; a mel comes
from `audio.flac`; features come from the Parquet files of `train embed`.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import format as shard_format
from pipeline.config import Limits, ShardConfig, rational_text
from pipeline.errors import ClipError, Reason, plain_text
from pipeline.fields import FieldConfig
from pipeline.format import FIELD_SCHEMA
from pipeline.item import Failed, Item, Made, Opened, Outcome, Row
from pipeline.outputs import Outputs, Place

__all__ = ["FieldConfig", "side_outcomes"]

Members = dict[str, bytes]
UNREADABLE = (ValueError, KeyError, TypeError, OSError)
"""What decoding a damaged sample may raise."""


def side_outcomes(item: Item, config: FieldConfig, limits: Limits) -> Iterator[Outcome | Opened]:
    """The side samples of an item's rows: first `Opened`, then one outcome a row."""
    if config.origin == "source":
        yield from _from_source(item, config, limits)
        return
    yield Opened(sum(row["seconds"] for row in item.rows))
    for index, row in enumerate(item.rows):
        try:
            members, facts = _MAKERS[config.kind](config, item, row)
        except ClipError as error:
            yield Failed(index, error)
            continue
        yield Made(index, members, {"frames": row["frames"], "seconds": row["seconds"], **facts})


def _stored(item: Item, row: Row) -> tuple[dict[str, Any], Members]:
    """JSON and members of a stored sample.

    Raises:
        ClipError: it is damaged.
    """
    place = Place(row["key"], Path(row["uri"]).stem, row["offset"], row["size"])
    try:
        members = Outputs(Path(item.root)).read_members(place)
        meta = shard_format.decode_meta(members)
        if meta["key"] != row["key"]:
            raise shard_format.FormatError(f"there is {meta['key'][:100]!r} in its place")
    except UNREADABLE as error:
        raise _damaged(error) from error
    return meta, members


def _damaged(error: Exception) -> ClipError:
    said = plain_text(f"the stored sample cannot be read: {type(error).__name__}: {error}")
    return ClipError(Reason.DECODE_ERROR, said, "sample")


def _head(config: FieldConfig, meta: dict[str, Any]) -> dict[str, Any]:
    """How the JSON of every side sample begins."""
    return {
        "schema": FIELD_SCHEMA,
        "key": meta["key"],
        "field": config.field,
        "frames": meta["frames"],
        "origin": config.origin,
    }


# --- faces --------------------------------------------------------------------------------------


def _faces(config: FieldConfig, item: Item, row: Row) -> tuple[Members, dict[str, Any]]:
    """Crops or landmarks of the first face; dlib is loaded only by sets that look for faces."""
    from pipeline.field_faces import face_member

    meta, members = _stored(item, row)
    try:
        data, told = face_member(config, meta, members["frames.mjpeg"], row.get("face_xy"))
    except UNREADABLE as error:
        raise _damaged(error) from error
    head = {**_head(config, meta), **told}
    names = config.members
    made = {names[0]: shard_format.encode_json(head), names[1]: data}
    return made, {"face": bool(told["faces"]), "enlarged": told["enlarged"]}


# --- sound --------------------------------------------------------------------------------------


def _mel(config: FieldConfig, item: Item, row: Row) -> tuple[Members, dict[str, Any]]:
    """A mel of another rate, from the stored waveform."""
    meta, members = _stored(item, row)
    try:
        pcm = shard_format.decode_flac_pcm(
            members["audio.flac"], shard_format.waveform_samples(meta)
        )
    except UNREADABLE as error:
        raise _damaged(error) from error
    return _mel_members(config, meta, mel_of(config, meta, pcm)), {}


def mel_of(
    config: FieldConfig, meta: dict[str, Any], pcm: npt.NDArray[np.int16]
) -> npt.NDArray[np.float16]:
    """(80, 3 T) of the stored samples (samples, channels); nothing is known beyond their ends."""
    from pipeline.clock import Grid
    from pipeline.mel import log_mel, margin_samples
    from pipeline.sound import Sound

    assert config.mel_rate_hz is not None
    hop = mel_config(config).hop_samples
    wave = pcm.astype(np.float32) / np.float32(1 << 15)
    sound = Sound(int(meta["waveform_rate_hz"]), 0, wave, (), 0)
    grid = Grid(Fraction(0), config.base.fps, meta["frames"])
    cut = sound.cut(grid, config.mel_rate_hz, margin_samples(hop))
    return log_mel(cut.mean(axis=1), config.mel_rate_hz, hop).astype(np.float16)


def mel_config(config: FieldConfig) -> ShardConfig:
    """The set's, with the mel of the field; refuses rates as the set would."""
    assert config.mel_rate_hz is not None
    return replace(config.base, mel_rate_hz=config.mel_rate_hz)


def _mel_members(
    config: FieldConfig, meta: dict[str, Any], mel: npt.NDArray[np.float16]
) -> Members:
    head = {
        **_head(config, meta),
        "mel_rate_hz": config.mel_rate_hz,
        "hop_samples": mel_config(config).hop_samples,
        "fps": rational_text(config.base.fps),
    }
    names = config.members
    return {names[0]: shard_format.encode_json(head), names[1]: shard_format.encode_npy(mel)}


# --- features -----------------------------------------------------------------------------------


def _features(config: FieldConfig, item: Item, row: Row) -> tuple[Members, dict[str, Any]]:
    """The vectors of `train embed`: (C,) of a clip, or (T, C) of its frames."""
    rows = _part(config.parts, Path(row["uri"]).stem).get(row["key"])
    if not rows:
        raise ClipError(Reason.NOT_RUN, "no features were made of this clip", "sample")
    found: Members = {}
    has: dict[str, bool] = {}
    for name in config.features:
        vectors = [one[name] for one in rows]
        has[name] = all(vector is not None for vector in vectors)
        array = np.array(vectors if has[name] else [], np.float32)
        if config.facts.get("per") != "frame" and has[name]:
            array = array[0]
        found[f"{config.field}.{name}.npy"] = shard_format.encode_npy(array)
    if not any(has.values()):
        raise ClipError(Reason.NOT_RUN, "no feature can be had of this clip", "sample")
    told = {name: rows[0].get(name) for name in ("has_sound", "faceless", "windows")}
    meta = {"key": row["key"], "frames": row["frames"]}
    head = {**_head(config, meta), **told, "has": has}
    return {config.members[0]: shard_format.encode_json(head), **found}, {}


@lru_cache(maxsize=1)
def _part(folder: str, shard: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of a part by key; a shard has one part, and its samples come one after the other."""
    import pyarrow.parquet as pq

    path = Path(folder) / f"{shard}.parquet"
    found: dict[str, list[dict[str, Any]]] = {}
    if path.is_file():
        for row in pq.read_table(path).to_pylist():
            found.setdefault(row["key"], []).append(row)
    return found


# --- from the source again ----------------------------------------------------------------------


def _from_source(item: Item, config: FieldConfig, limits: Limits) -> Iterator[Outcome | Opened]:
    """The samples are made as the job made them, and of each only the field is kept."""
    from pipeline.field_faces import face_config
    from pipeline.sample import outcomes

    full = face_config(config)
    if config.kind == "mel":
        full = replace(mel_config(config), faces="off")
    for outcome in outcomes(item, full, limits):
        if isinstance(outcome, Made):
            try:
                yield _of_source(outcome, item.rows[outcome.index], config)
            except ClipError as error:
                yield Failed(outcome.index, error)
        else:
            yield outcome


def _of_source(made: Made, row: Row, config: FieldConfig) -> Made:
    meta = json.loads(made.members["json"])
    stored = row["stored"]
    same = {name: (meta["source"].get(name), stored[name]) for name in ("bytes", "sha1")}
    same["frames"] = meta["frames"], stored["frames"]
    for name, (now, before) in same.items():
        if now != before:
            said = f"the source is not what the sample was made of: {name} {before} -> {now}"
            raise ClipError(Reason.DECODE_ERROR, said, "sample")
    facts = {"frames": meta["frames"], "seconds": made.facts["seconds"]}
    if config.kind == "mel":
        mel = shard_format.decode_npy(made.members["mel.npy"])
        return Made(made.index, _mel_members(config, meta, mel), facts)
    data = made.members[f"{config.kind}.{'npy' if config.kind == 'landmarks' else 'mjpeg'}"]
    sizes = {config.field: meta["jpeg_sizes"][config.kind]} if config.kind != "landmarks" else {}
    head = {**_head(config, meta), "jpeg_sizes": sizes, "faces": meta["faces"]}
    names = config.members
    members = {names[0]: shard_format.encode_json(head), names[1]: data}
    return Made(made.index, members, {**facts, "face": bool(meta["faces"])})


_MAKERS = {
    "lip": _faces,
    "face": _faces,
    "landmarks": _faces,
    "mel": _mel,
    "features": _features,
}
