"""A shard set -> its features, a Parquet file a shard: what `train embed` makes.

Windows that cover a clip go through the network; a clip, or a frame, is the mean over those that
show it. Ranks share the shards; parts that are there are kept.
"""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from train.apply.clips import Clip, Sums, clips_of, covering, places_of
from train.apply.embed_options import EmbedOptions
from train.apply.table import Layout, Rows, write_part
from train.config import uses_bf16
from train.dist import Ranks
from train.errors import UsageError
from train.evaluation.clips import ClipView, Look, batched, read_clips, require_members
from train.evaluation.encoders import SOUND, Encoders, in_time, over_frames, require_finite
from train.evaluation.task import Modality, Settings
from train.fields import with_members
from train.index import Ints, ShardSet
from train.loader import default_workers
from train.methods import method_named
from train.read import FRAMES

log = logging.getLogger(__name__)


@dataclass
class FeaturePlan:
    """Features of one shard set: which, of which clips, and where they go."""

    options: EmbedOptions
    encoders: Encoders
    shard_set: ShardSet
    settings: Settings
    names: dict[str, int]
    """Features that this set gives, and their channels."""
    layout: Layout
    """Of the output, which may have more."""
    lacks_pictures: bool
    """Features of pictures were wished for, and the set stores none."""
    view: ClipView
    """What of a clip is read."""
    seen: list[Clip] = field(default_factory=list)
    """Of this rank, of this call."""

    def facts(self) -> dict[str, Any]:
        """What the parts depend on; JSON types."""
        origin = self.encoders.origin or {}
        return {
            "checkpoint": origin.get("sha256"),
            "shards": self.shard_set.content_sha256,
            **{f"field {one.name}": one.sha256 for one in self.shard_set.fields.values()},
            "per": self.options.per,
            "settings": json.loads(json.dumps(dataclasses.asdict(self.settings))),
            "window": self.window,
            "overlap": self.options.shared,
            "split": self.options.split,
            "batch_size": self.options.batch_size,
            "channels": self.layout.channels,
        }

    @property
    def window(self) -> int:
        """Frames; 0 is the whole clip."""
        frames = self.options.frames
        return self.encoders.frames if frames is None else frames

    def run(self, folder: Path, ranks: Ranks) -> list[Path]:
        """Make the parts that are missing, this rank's share of them.

        Returns:
            All parts, in the order of the shards, also those of other ranks.
        """
        folder.mkdir(parents=True, exist_ok=True)
        rows_of = self.rows_of_shards()
        parts = {shard: folder / f"{Path(self.shard_set.shards[shard]).stem}.parquet"
                 for shard in rows_of}  # fmt: skip
        missing = [shard for shard, path in parts.items() if not path.is_file()]
        mine = list(parts)[ranks.rank :: ranks.world]
        with tqdm(desc="features", unit="window", disable=None if ranks.is_first else True) as bar:
            for shard in mine:
                if shard in missing:
                    write_part(parts[shard], self._part(rows_of[shard], bar))
        return list(parts.values())

    def lacking(self) -> list[str]:
        """What to tell of clips without features, because they lack a field that is read."""
        rows, lines = self._asked(), []
        for one in self.shard_set.fields.values():
            keys = self.shard_set.keys.take(rows[~one.there[rows]]).to_pylist()
            counts = Counter(map(one.why_not, keys))
            reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))
            if keys:
                lines.append(f"without the field {one.name}, and so without features: {len(keys)} "
                             f"({reasons})")  # fmt: skip
        return lines

    def _asked(self) -> Ints:
        """The rows of the split."""
        if self.options.split:
            return self.shard_set.in_split(self.options.split)
        return np.arange(len(self.shard_set))

    def rows_of_shards(self) -> dict[int, list[int]]:
        """The rows of each shard that has some of the split with all that is read."""
        asked = self._asked()
        found: dict[int, list[int]] = {}
        for row in asked[self.shard_set.has_fields[asked]].tolist():
            found.setdefault(int(self.shard_set.shard[row]), []).append(row)
        return dict(sorted(found.items()))

    def _part(self, rows: list[int], bar: Any) -> Any:
        clips = clips_of(self.shard_set, rows)
        self.seen += clips
        examples = [clip.example for clip in clips]
        looks = covering(examples, self.window, self.options.shared, self.settings.crops)
        sums = _Collected(self, clips)
        for batch, found in _features(self, examples, looks):
            sums.add(batch, found)
            bar.update(len(batch))
        return sums.table()


def plan_of(options: EmbedOptions, encoders: Encoders, shard_set: ShardSet) -> FeaturePlan:
    """What a set can give.

    Raises:
        UsageError: it does not store what is asked for.
    """
    modality: Modality = options.modality or "V+A"
    layout = Layout(options.per, encoders.wanted(options.settings(modality)))
    stores_pictures = FRAMES in shard_set.members or not shard_set.members
    lacks = modality == "V+A" and not stores_pictures
    settings = options.settings("A" if lacks else modality)
    view = ClipView(settings.pictures, encoders.sound if settings.uses_sound else None)
    shard_set = with_members(shard_set, view.members(0))
    require_members(shard_set, view, "embed")
    rate = method_named(encoders.method).fps
    if rate and rate != float(shard_set.fps):
        log.warning("%s has %g frames a second; the windows of %s are made for %g", shard_set.name,
                    shard_set.fps, encoders.preset, rate)  # fmt: skip
    names = encoders.wanted(settings)
    plan = FeaturePlan(options, encoders, shard_set, settings, names, layout, lacks, view)
    if not plan.rows_of_shards():
        raise UsageError(
            f"no clip of {shard_set.name} can have features; {'; '.join(plan.lacking())}"
        )
    return plan


@contextmanager
def _autocast(options: EmbedOptions, device: torch.device) -> Iterator[None]:
    bf16 = uses_bf16(options.precision, device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, bf16):
        yield


def _features(
    plan: FeaturePlan, examples: list[Any], looks: list[Look]
) -> Iterator[tuple[list[Look], dict[str, Any]]]:
    """Windows with their features by name, (B, T or 1, C), and `faceless` (B,)."""
    options, encoders = plan.options, plan.encoders
    device = next(encoders.module.parameters()).device
    batches = list(batched(looks, options.batch_size, equal=True))
    workers = default_workers(1) if options.workers is None else options.workers
    for batch, raw in zip(
        batches, read_clips(plan.shard_set, examples, plan.view, batches, workers), strict=True
    ):
        ready = raw.to(device).centred(encoders.crop)
        with _autocast(options, device):
            found = encoders.features(ready.video, ready.sound)
            frames = batch[0].frames
            places = {name: over_frames(found, name, plan.settings) for name in plan.names}
            if options.per == "frame":
                places = {name: in_time(x, frames) for name, x in places.items()}
            else:
                places = {name: x.mean(dim=1, keepdim=True) for name, x in places.items()}
        steps = {name: x.cpu().numpy() for name, x in places.items()}
        require_finite(steps)
        yield batch, {**steps, "faceless": raw.faceless.numpy()}


class _Collected:
    """Features of the clips of a part, while their windows come in."""

    def __init__(self, plan: FeaturePlan, clips: list[Clip]) -> None:
        self._plan, self._clips = plan, clips
        per_frame = plan.options.per == "frame"
        lengths = [clip.example.frames if per_frame else 1 for clip in clips]
        self._firsts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._sums = {name: Sums(int(self._firsts[-1]), (size,)) for name, size in
                      plan.names.items()}  # fmt: skip
        self._windows = np.zeros(len(clips), np.int64)
        self._faceless = np.zeros(len(clips), bool)

    def add(self, batch: list[Look], found: dict[str, Any]) -> None:
        """Windows with what `_features` gives of them."""
        for number, look in enumerate(batch):
            self._windows[look.example] += 1
            self._faceless[look.example] |= bool(found["faceless"][number])
            first = self._firsts[look.example]
            for name, sums in self._sums.items():
                values = found[name][number]
                if self._plan.options.per == "frame":
                    places = places_of(look, self._clips[look.example].example)
                    sums.add(first + places, values)
                else:
                    sums.add(np.array([first]), values)

    def table(self) -> Any:
        """The rows."""
        rows = Rows(self._plan.layout)
        means = {name: sums.mean() for name, sums in self._sums.items()}
        for number, clip in enumerate(self._clips):
            span = slice(self._firsts[number], self._firsts[number + 1])
            count = int(span.stop - span.start)
            rows.add(count, **self._facts(number, clip), **{
                name: values[span] for name, values in means.items() if self._known(name, clip)
            })  # fmt: skip
        return rows.table()

    def _known(self, name: str, clip: Clip) -> bool:
        """Whether a feature can be had of a clip: silence that stands for sound is no sound."""
        needs_sound = name == SOUND or self._plan.settings.pooling == "full_attention"
        return clip.has_sound or not needs_sound

    def _facts(self, number: int, clip: Clip) -> dict[str, Any]:
        frames = clip.example.frames
        asked = self._plan.settings.pictures in ("lip", "face")
        facts = {
            "key": clip.example.name,
            "uri": clip.uri,
            "has_sound": clip.has_sound,
            "faceless": bool(self._faceless[number]) if asked else None,
        }
        if self._plan.options.per == "clip":
            return {**facts, "start_seconds": clip.start_seconds, "seconds": frames / clip.fps,
                    "windows": int(self._windows[number])}  # fmt: skip
        times = np.array([clip.seconds_at(frame + 0.5) for frame in range(frames)])
        return {**facts, "frame": np.arange(frames, dtype=np.int32), "time_seconds": times}
