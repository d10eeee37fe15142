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

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stores import open_store
from train.apply.embed_options import EmbedOptions
from train.apply.features import FeaturePlan, plan_of
from train.apply.into_set import add_to_set, require_addable
from train.apply.table import Layout, join, require_ending, write_part
from train.apply.videos import DEFAULT_PROFILE, SOUND_PROFILE, Recipe, Video, existing, shards_of
from train.checkpoint import write_atomically
from train.cores import limit_threads
from train.dist import Ranks, joined
from train.errors import UsageError
from train.evaluation.encoders import SOUND, Encoders, load_checkpoint
from train.index import INDEX_NAME, open_shards

__all__ = ["EmbedOptions", "embed", "is_set"]

FACTS = "embed.json"
COMPLETE, INCOMPLETE = 0, 3


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
    limit_threads(options.threads)
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
        plans = [plan_of(options, encoders, one.shard_set) for one in made.sets]
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


def _tell_clips(outcome: Outcome, plans: Sequence[FeaturePlan]) -> None:
    clips = [clip for plan in plans for clip in plan.seen]
    mute = [clip for clip in clips if not clip.has_sound]
    blind = [clip for plan in plans if plan.lacks_pictures for clip in plan.seen]
    for what, which in (("sound", mute), ("pictures", blind)):
        if which:
            names = ", ".join(clip.uri for clip in which[:5]) + (" ..." if len(which) > 5 else "")
            outcome.lines.append(f"without {what}, whose features are null: {len(which)} ({names})")
    outcome.lines += [line for plan in plans for line in plan.lacking()]


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
    plan = plan_of(options, encoders, shard_set)
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
