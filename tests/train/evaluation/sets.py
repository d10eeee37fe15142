"""Small labelled shard sets: what a clip is of can be seen and heard, and some are missing."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.columns import table
from pipeline import format as shard_format
from pipeline.config import ShardConfig
from tests.pipeline.fabricate import Members, edit_json, failure, make_members, write_set

CONFIG = ShardConfig("glcm", Fraction(10), 32, 22050)
FACES = ShardConfig("lips", Fraction(25), 32, 22050, faces="on", crop_size=24)
SOUND = ShardConfig("sound", Fraction(10), None, 22050, 24000, 1)


@dataclass(frozen=True)
class Clip:
    """One row of a manifest, and what its sample holds."""

    key: str
    label: int = 0
    splits: tuple[str, ...] = ("demo:train",)
    group: str = ""
    seconds: float = 1.0
    face: bool = True
    missing: bool = False
    """It became no sample."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further fields of its manifest row and its JSON: transcript, words, segments."""


def labelled_set(
    out: Path,
    clips: Sequence[Clip],
    config: ShardConfig = CONFIG,
    *,
    classes: Sequence[str] = ("low", "high"),
    name: str = "demo",
    edit: Callable[[Clip, Members], Members] | None = None,
) -> Path:
    """A finished set of these clips; mel bands and pictures tell a clip's label."""
    there = [clip for clip in clips if not clip.missing]
    samples = [_sample(clip, number, config, edit) for number, clip in enumerate(there)]
    failures = [failure(clip.key) for clip in clips if clip.missing]
    write_set(out, config, [samples], [failures])
    manifest = table([_row(clip, name) for clip in clips])
    numbers = pa.array(list(range(len(clips))), pa.int64())
    pq.write_table(manifest.append_column("instance", numbers), out / "manifest.parquet")
    members = list(config.members)
    edit_json(out / "shardindex.json", labels=list(classes), name=f"{name}-{config.profile}",
              dataset=name, members=members)  # fmt: skip
    return out


def _row(clip: Clip, name: str) -> dict[str, Any]:
    facts = dict(clip.facts)
    if "extra" in facts:
        facts["extra"] = json.dumps(facts["extra"])
    return {
        "key": clip.key, "dataset": name, "splits": list(clip.splits), "labels": [clip.label],
        "group_id": clip.group or clip.key, **facts,
    }  # fmt: skip


def _sample(
    clip: Clip, number: int, config: ShardConfig, edit: Callable[[Clip, Members], Members] | None
) -> Members:
    members = make_members(config, clip.key, instance=number, seconds=clip.seconds, face=clip.face)
    meta = json.loads(members["json"])
    meta |= {"labels": [clip.label], "splits": list(clip.splits), "group": clip.group or clip.key}
    meta |= clip.facts
    rng = np.random.default_rng(number)
    mel = rng.normal(0, 0.3, (80, 3 * meta["frames"]))
    mel[20 * clip.label : 20 * clip.label + 20] += 3
    members["mel.npy"] = shard_format.encode_npy(mel.astype(np.float16))
    if config.short_side is not None:
        gray = 40 + 60 * clip.label
        jpegs = [
            shard_format.encode_jpeg(np.full((config.short_side, 42, 3), gray, np.uint8), 90)
            for _ in range(meta["frames"])
        ]
        members["frames.mjpeg"], meta["jpeg_sizes"]["frames"] = shard_format.join_jpegs(jpegs)
    members["json"] = shard_format.encode_json(meta)
    return members if edit is None else edit(clip, members)
