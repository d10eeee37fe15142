"""Manifest rows, and files hurt on purpose, for tests that cut single files."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import av
import pyarrow as pa

from manifests import schema
from pipeline.config import Limits, ShardConfig
from pipeline.item import Failed, Item, Made, Row
from pipeline.sample import outcomes


def row(uri: str, start: float | None = None, end: float | None = None, **more: Any) -> Row:
    """A manifest row as the plan hands it on."""
    empty = dict.fromkeys(
        ("transcript", "words", "segments", "audio_uri", "container", "face_xy", "extra")
    )
    names = {"key": f"{uri}@{start}", "dataset": "folder", "instance": 0, "group_id": None}
    lists: dict[str, list[str]] = {"splits": [], "labels": [], "label_names": []}
    window = {"uri": uri, "start_s": start, "end_s": end, "anchored": False}
    return {**empty, **names, **lists, **window, **more}


def manifest(*keys: str, **more: Any) -> pa.Table:
    """Manifest rows of one file each."""
    return schema.table(
        {
            "dataset": "folder", "key": key, "uri": f"{key}.mp4", "source_id": key,
            "group_id": key, "bytes": 1000, "splits": [], **more,
        }
        for key in keys
    )  # fmt: skip


def cut(
    folder: Path, *rows: Row, config: ShardConfig, limits: Limits | None = None
) -> dict[int, Any]:
    """The outcomes of rows of one file, by row number, made in this process."""
    found = outcomes(Item(str(folder), rows), config, limits or Limits())
    return {outcome.index: outcome for outcome in found if isinstance(outcome, Made | Failed)}


def damage(source: Path, target: Path, kind: str, numbers: Collection[int]) -> Path:
    """Copy a file packet by packet, some packets of a stream type overwritten with 0xff."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        seen = 0
        for packet in old.demux():
            if packet.size == 0:
                continue
            copy = packet
            if packet.stream.type == kind:
                copy = _overwritten(packet) if seen in numbers else packet
                seen += 1
            copy.stream = copies[packet.stream.index]
            new.mux(copy)
    return target


def _overwritten(packet: Any) -> Any:
    copy = av.Packet(b"\xff" * packet.size)
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    copy.duration, copy.is_keyframe = packet.duration, packet.is_keyframe
    return copy
