"""`python -m train embed`: global, local and audio features of videos, or of shards.

    python -m train embed my.mp4 other.mov --checkpoint runs/first --out features.parquet
    python -m train embed *.mp4 --checkpoint exported/first --per frame --out features.npz
    python -m train embed data/shards/ucf101-glcm --checkpoint runs/first   # a Parquet a shard
    torchrun --standalone --nproc_per_node 8 -m train embed SHARDS --checkpoint runs/first
    python -m train embed SHARDS --checkpoint runs/first --into-set embed   # and as side shards

Columns: key, uri, fg (global path, C_g numbers), fl (local path), fa (sound), and what is known of
the clip. One row a clip: the mean over windows that cover it. `--per frame`: one row a frame with
the time of its middle, counted from the first picture or sound of the file; where windows overlap,
their mean. A clip shorter than a window is repeated. What cannot be had is null (NaN in NPZ): fa of
a video without sound, fg and fl of a file without pictures; has_sound says why.

Plain videos are decoded by `python -m pipeline shards` into a temporary shard set; long recordings
are cut with --cut-seconds 10. Shards give one Parquet a shard in --out FOLDER; the same command
goes on where it was interrupted, ranks share the shards; with --out FILE the parts are joined.

Exit codes: 0 complete, 2 usage, 3 some videos have no features (told with their reasons), 5 corrupt
shards.
"""

import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro
from tqdm import tqdm

from stores import open_store
from train.apply.clips import Clip, Sums, clips_of, covering, places_of
from train.apply.into_set import add_to_set, require_addable
from train.apply.table import Layout, Per, Rows, join, require_ending, write_part
from train.apply.videos import DEFAULT_PROFILE, SOUND_PROFILE, Recipe, Video, existing, shards_of
from train.checkpoint import write_atomically
from train.config import Precision, uses_bf16
from train.dist import Ranks, joined
from train.errors import UsageError
from train.evaluation.clips import ClipView, Look, batched, read_clips, require_members
from train.evaluation.encoders import (
    SOUND,
    Encoders,
    in_time,
    load_checkpoint,
    over_frames,
    require_finite,
)
from train.evaluation.task import Features, Modality, Pooling, Settings
from train.fields import with_members
from train.index import INDEX_NAME, ShardSet, open_shards
from train.loader import default_workers
from train.methods import method_named
from train.read import FRAMES

log = logging.getLogger(__name__)

FACTS = "embed.json"
COMPLETE, INCOMPLETE = 0, 3
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EmbedOptions:
    """Of what features are made, and which."""

    inputs: tyro.conf.Positional[tuple[str, ...]]
    """Videos, or one shard set (a folder with shardindex.json, or its address)."""
    checkpoint: Path
    """A checkpoint, a run's folder, or an exported folder."""
    out: Path | None = None
    """FILE.parquet or FILE.npz; of shards also a folder. None is features.parquet for videos, and
    features-NAME for a shard set, in the current folder."""
    per: Per = "clip"
    """One row a clip, or a frame."""
    modality: Literal["V", "A", "V+A"] | None = None
    """Features of pictures, of sound, or of both; None is what there is."""
    pictures: Literal["frames", "lip", "face"] = "frames"
    """Whole frames, or the crops of the first face: lip, face."""
    features: Features = "both"
    """Of pictures: fg and fl, or one of them (g, l)."""
    pooling: Pooling = "full_avg"
    """Over the grid: mean, or full_attention: weighed by the attention map, which needs sound."""
    frames: int | None = None
    """Window; None is the checkpoint's, 0 the whole clip at once."""
    overlap: float | None = None
    """Share of a window that the next one sees again, 0 or more, below 1; None is 0 for clips, 0.5
    for frames."""
    crops: int = 1
    """1: the centre; 3: along the long side, averaged."""
    profile: str = ""
    """Of videos: what the pipeline stores; lips or deepfake for crops of faces, at their rates.
    Empty is the one that the checkpoint's method reads."""
    cut_seconds: float | None = None
    """Of videos: cut each into pieces of so many seconds, a row each; the rest is left out."""
    split: str = ""
    """Of shards: only clips of this split; empty is all."""
    into_set: str = ""
    """Of shards: also make the features a field of this name of the set, which the loader joins
    (--fields NAME) and other tools find in side shards."""
    overwrite: bool = False
    """Throw away what is in --out."""
    allow_http: bool = False
    """Read shards from web servers (http, https), too."""
    batch_size: int = 16
    """Windows at once."""
    precision: Precision = "auto"
    """bf16 autocast or fp32; auto is bf16 on a GPU."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    threads: int | None = None
    """Threads of torch on a CPU; None leaves torch's choice."""
    workers: int | None = None
    """Reading processes of each rank; None is the usable cores less one, 0 reads in the loop."""

    def __post_init__(self) -> None:
        """Ranges."""
        if not self.inputs:
            raise UsageError("name videos, or a shard set: python -m train embed my.mp4 "
                             "--checkpoint runs/first")  # fmt: skip
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise UsageError(f"--overlap is {self.overlap}; expected 0 or more, below 1")
        if self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}; expected 1 or more")
        if self.cut_seconds is not None and self.cut_seconds <= 0:
            raise UsageError(f"--cut-seconds is {self.cut_seconds}; expected more than 0")
        self.settings("V+A")

    def settings(self, modality: Modality) -> Settings:
        """How clips are looked at.

        Raises:
            UsageError: values that do not go together.
        """
        pictures = self.pictures if "V" in modality else "none"
        pooling = self.pooling if "V" in modality else "full_avg"
        return Settings("frozen", pictures, modality, self.frames, crops=self.crops,
                        features=self.features, pooling=pooling)  # fmt: skip

    @property
    def shared(self) -> float:
        """The overlap of windows."""
        return (0.5 if self.per == "frame" else 0.0) if self.overlap is None else self.overlap


@dataclass
class Outcome:
    """What came of it."""

    lines: list[str] = field(default_factory=list)
    exit_code: int = COMPLETE


def embed(options: EmbedOptions) -> Outcome:
    """Make the features of videos or of a shard set.

    Raises:
        UsageError: inputs, flags or checkpoint do not fit; what is in --out is of others.
        TrainError: a feature is not finite, or the pipeline failed.
        ShardError, StoreError: shards are damaged, or cannot be reached.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    encoders = load_checkpoint(options.checkpoint)
    options = _with_defaults(options, encoders)
    with joined(options.device) as ranks:
        encoders.module.to(ranks.device)
        if is_set(options.inputs):
            return _of_shards(options, encoders, ranks)
        return _of_videos(options, encoders, ranks)


def is_set(inputs: Sequence[str]) -> bool:
    """Whether the input is a shard set.

    Raises:
        UsageError: a set and something else.
    """
    sets = [text for text in inputs if "://" in text or (Path(text) / INDEX_NAME).is_file()]
    if sets and len(inputs) > 1:
        raise UsageError(f"{sets[0]} is a shard set; name one set, or videos, in one call")
    return bool(sets)


# --- videos -------------------------------------------------------------------------------------


def _of_videos(options: EmbedOptions, encoders: Encoders, ranks: Ranks) -> Outcome:
    if ranks.world > 1:
        raise UsageError(
            "several ranks share shards, not videos: make DATASET=folder or table shards of them, "
            "then embed the set"
        )
    paths = existing(options.inputs)
    out = options.out or Path("features.parquet")
    require_ending(out)
    with shards_of([Video(path) for path in paths], _recipe(options)) as made:
        plans = [_plan(options, encoders, one.shard_set) for one in made.sets]
        parts = []
        for plan in plans:
            folder = Path(str(plan.shard_set.store)) / "features"
            parts += plan.run(folder, ranks)
        outcome = Outcome()
        if parts:
            layout = plans[0].layout
            table = _as_given(parts, {key: video for one in made.sets for key, video in
                                      made.video_of(one).items()}, paths)  # fmt: skip
            write_part(parts[0], table)
            _add_lines(outcome, join(parts[:1], out, layout), out, layout)
            _tell_clips(outcome, plans)
        for path, why in made.failed:
            outcome.lines.append(f"no features of {path}: {why}")
            outcome.exit_code = INCOMPLETE
        return outcome


def _as_given(parts: Sequence[Path], video_of: dict[str, Video], paths: Sequence[Path]) -> pa.Table:
    """The rows of all parts under the names that the user gave, in that order."""
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    videos = [video_of[key].path for key in table["key"].to_pylist()]
    place = table.schema.get_field_index("uri")
    table = table.set_column(place, table.schema.field("uri"), pa.array(map(str, videos)))
    when = "time_seconds" if "time_seconds" in table.column_names else "start_seconds"
    times = table[when].to_pylist()
    order = sorted(range(len(table)), key=lambda row: (paths.index(videos[row]), times[row]))
    return table.take(order)


def _with_defaults(options: EmbedOptions, encoders: Encoders) -> EmbedOptions:
    """What a checkpoint can give, where nothing else is asked for."""
    has_sound = SOUND in encoders.channels
    modality = options.modality or (None if has_sound else "V")
    return replace(options, modality=modality, profile=options.profile or encoders.profile)


def _recipe(options: EmbedOptions) -> Recipe:
    """Pictures are not decoded where only sound is asked for."""
    sound_only = options.modality == "A" and options.profile == DEFAULT_PROFILE
    return Recipe(
        SOUND_PROFILE if sound_only else options.profile,
        faces=None if options.pictures in ("lip", "face") else "off",
        cut_seconds=options.cut_seconds,
        sound_alone=options.modality != "V",
    )


def _tell_clips(outcome: Outcome, plans: Sequence["Plan"]) -> None:
    clips = [clip for plan in plans for clip in plan.seen]
    mute = [clip for clip in clips if not clip.has_sound]
    blind = [clip for plan in plans if plan.lacks_pictures for clip in plan.seen]
    for what, which in (("sound", mute), ("pictures", blind)):
        if which:
            names = ", ".join(clip.uri for clip in which[:5]) + (" ..." if len(which) > 5 else "")
            outcome.lines.append(f"without {what}, whose features are null: {len(which)} ({names})")


# --- shards -------------------------------------------------------------------------------------


def _of_shards(options: EmbedOptions, encoders: Encoders, ranks: Ranks) -> Outcome:
    shard_set = open_shards(open_store(options.inputs[0], allow_http=options.allow_http))
    out = options.out or Path(f"features-{shard_set.name}")
    is_file = out.suffix in (".parquet", ".npz")
    if options.into_set:
        require_addable(shard_set, options.into_set)
        if is_file:
            raise UsageError(f"--into-set takes the parts of a folder; --out {out} is a file")
    folder = out.with_name(out.name + ".parts") if is_file else out
    plan = _plan(options, encoders, shard_set)
    _claim(folder, plan.facts(), options.overwrite, ranks)
    parts = plan.run(folder, ranks)
    ranks.wait()
    outcome = Outcome()
    if not ranks.is_first:
        return outcome
    if is_file:
        _add_lines(outcome, join(parts, out, plan.layout), out, plan.layout)
        shutil.rmtree(folder)
    else:
        outcome.lines.append(f"{len(parts)} parts in {folder}: {_columns_told(plan.layout)}")
    _tell_clips(outcome, [plan])
    if options.into_set:
        outcome.lines += add_to_set(shard_set, options.into_set, folder, options.overwrite)
    return outcome


def _claim(folder: Path, facts: dict[str, Any], overwrite: bool, ranks: Ranks) -> None:
    """Make the folder ours, or find that it is.

    Raises:
        UsageError: it holds something else.
    """
    stored = folder / FACTS
    if folder.is_dir() and any(folder.iterdir()):
        try:
            known = json.loads(stored.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"--out {folder} holds other files; name a new folder") from error
        changed = sorted(name for name in facts if known.get(name) != facts[name])
        if changed and not overwrite:
            raise UsageError(
                f"--out {folder} holds features with another {', '.join(changed)}; give another "
                "--out, or --overwrite"
            )
    ranks.wait()  # everybody has looked before anybody writes
    if ranks.is_first:
        if overwrite and stored.is_file():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(stored, json.dumps(facts, indent=1) + "\n")
    ranks.wait()


def _add_lines(outcome: Outcome, rows: int, out: Path, layout: Layout) -> None:
    outcome.lines.append(f"{out}: {rows:,} rows, one a {layout.per}: {_columns_told(layout)}")


def _columns_told(layout: Layout) -> str:
    return ", ".join(f"{name} ({size})" for name, size in layout.channels.items())


# --- one set ------------------------------------------------------------------------------------


@dataclass
class Plan:
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
        rows_of = self._rows_of_shards()
        parts = {shard: folder / f"{Path(self.shard_set.shards[shard]).stem}.parquet"
                 for shard in rows_of}  # fmt: skip
        missing = [shard for shard, path in parts.items() if not path.is_file()]
        mine = list(parts)[ranks.rank :: ranks.world]
        with tqdm(desc="features", unit="window", disable=None if ranks.is_first else True) as bar:
            for shard in mine:
                if shard in missing:
                    write_part(parts[shard], self._part(rows_of[shard], bar))
        return list(parts.values())

    def _rows_of_shards(self) -> dict[int, list[int]]:
        """The rows of each shard that has some of the split."""
        chosen = np.arange(len(self.shard_set))
        if self.options.split:
            chosen = self.shard_set.in_split(self.options.split)
        chosen = chosen[self.shard_set.has_fields[chosen]]
        found: dict[int, list[int]] = {}
        for row in chosen.tolist():
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


def _plan(options: EmbedOptions, encoders: Encoders, shard_set: ShardSet) -> Plan:
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
    return Plan(options, encoders, shard_set, settings, names, layout, lacks)


@contextmanager
def _autocast(options: EmbedOptions, device: torch.device) -> Iterator[None]:
    bf16 = uses_bf16(options.precision, device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, bf16):
        yield


def _features(
    plan: Plan, examples: list[Any], looks: list[Look]
) -> Iterator[tuple[list[Look], dict[str, Any]]]:
    """Windows with their features by name, (B, T or 1, C), and `faceless` (B,)."""
    options, encoders = plan.options, plan.encoders
    device = next(encoders.module.parameters()).device
    batches = list(batched(looks, options.batch_size, equal=True))
    workers = default_workers(1) if options.workers is None else options.workers
    view = ClipView(plan.settings.pictures, encoders.sound if plan.settings.uses_sound else None)
    for batch, raw in zip(
        batches, read_clips(plan.shard_set, examples, view, batches, workers), strict=True
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

    def __init__(self, plan: Plan, clips: list[Clip]) -> None:
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
