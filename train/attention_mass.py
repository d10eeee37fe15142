"""`python -m train attention`: does the attention map lie on what sounds?

    python -m train attention --checkpoint runs/glcm-tiny --shards data/shards/demo-glcm
    python -m train attention --checkpoint runs/first/checkpoints/step-00000500.pt \\
        --shards data/shards/grid-glcm --boxes face --windows 1

Shards whose samples know boxes (the demo corpus' truth, or faces and mouths) answer it. The share
of a map's mass inside the box is divided by the box's share of the picture, which is the mass of a
uniform map: 1 is no knowledge, more is better. Beside it stand two baselines: a Gaussian in the
middle of the picture, where cameramen put things, and the same maps made with the sound of another
speaker or source. A map that is as good with foreign sound looks at what is conspicuous, not at
what sounds.

Prints a line for all clips and one a label, with bootstrap intervals; writes the overlay
attention-SPLIT.png and the numbers as JSON into the run's folder, where `python -m train report`
takes them into the page.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from train import checkpoint
from train.augment import centre
from train.batch import Batch
from train.boxes import LANDMARKS, Boxes, Floats, boxes_in_crop, centre_map, covered, mass_ratio
from train.config import from_dict
from train.errors import UsageError
from train.methods import method_named
from train.mixture import Mixture, open_mixture, parse_shards
from train.read import FRAMES, MEL, ShardReader, StoredClip, Window
from train.strangers import strangers

RESAMPLES = 10_000
CLIPS_AT_ONCE = 8
LEVEL = 0.95
"""Of the interval: bootstrap over clips, percentiles."""
MAPS = ("learned", "foreign_sound", "centre")


@dataclass(frozen=True)
class AttentionOptions:
    """What is measured, and on what."""

    checkpoint: Path
    """A run's folder, of which the newest checkpoint is taken, or a checkpoint."""
    shards: str
    """Sets with boxes, as in `pretrain`; the paths are read, @n and @w do not matter."""
    split: str = "val"
    """Which split."""
    boxes: Boxes = "truth"
    """`truth` of a generated corpus, or the `face` or its `mouth` of the first track."""
    windows: int = 4
    """Windows of each clip, evenly spread over it, >= 1; a clip counts once, with their mean."""
    limit: int | None = None
    """At most so many clips of each set; None takes all."""
    picture: Path | None = None
    """Where the overlay is written; None is attention-SPLIT.png beside the checkpoints."""
    shown: int = 12
    """Clips in the overlay."""
    data: Path = Path("data")
    """Where default shard sets are looked for."""

    def __post_init__(self) -> None:
        """Ranges."""
        if self.boxes not in get_args(Boxes):
            raise UsageError(f"boxes is {self.boxes!r}; expected one of {get_args(Boxes)}")
        for name in ("windows", "shown", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; expected 1 or more")


@dataclass(frozen=True)
class Seen:
    """One window of a clip as measured."""

    key: str
    kind: str
    """Its first label, or the data set's name."""
    boxes: Floats
    """(T, 4): x0, y0, x1, y1 over the crop's side, 0 .. 1 inside it; NaN where there is none."""
    maps: dict[str, Floats]
    """(H, W) by `MAPS`, each sums to 1; NaN where there is no other clip's sound."""
    start_seconds: float = 0.0
    """Where the window begins, from the clip's first frame."""
    frame: Floats | None = None
    """The middle frame (H, W, 3) in 0 .. 1, of windows that are shown."""


@dataclass(frozen=True)
class Ratio:
    """Mean over clips of mass inside the box / the box's share, and its interval."""

    mean: float
    low: float
    high: float
    clips: int


# --- measuring ----------------------------------------------------------------------------------


def interval(ratios: Floats, seed: int = 0) -> Ratio:
    """Mean over clips with a bootstrap interval; ratios (clips,) without NaN, at least one."""
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    means = ratios[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ratio(float(ratios.mean()), float(low), float(high), len(ratios))


def measure(options: AttentionOptions) -> dict[str, Any]:
    """Maps of all clips against their boxes.

    Returns:
        JSON types: `learned`, `foreign_sound` and `centre` with mean, low, high, clips; `kinds`
        the same for each label; `foreign_sound_from`, where it is from; `without_box`, clips that
        know none inside the crop; `picture`.

    Raises:
        UsageError: no clip has a box, or the method has no attention map.
    """
    model, config, step = load_model(options.checkpoint)
    sources = parse_shards(options.shards, options.data)
    mixture = open_mixture(sources, frames=config.frames, split=options.split)
    foreign = [
        strangers(part.shard_set, part.rows[: options.limit].tolist()) for part in mixture.parts
    ]
    seen = list(look(model, config.crop, mixture, options, [others for others, _ in foreign]))
    ratios = clip_ratios(seen)
    if not ratios:
        raise UsageError(
            f"no clip of split {options.split} has a box ({options.boxes}) inside the crop; shards "
            "of the demo corpus know `truth`, shards made with faces know `face` and `mouth`"
        )
    picture = options.picture or _folder_of(options.checkpoint) / f"attention-{options.split}.png"
    shown = [one for one in seen if one.frame is not None]
    draw(picture, shown, {key: one["learned"] for key, one in ratios.items()}, options.windows)
    kinds = sorted({one["kind"] for one in ratios.values()})
    return {
        "checkpoint": str(options.checkpoint),
        "step": step,
        "split": options.split,
        "boxes": options.boxes,
        "foreign_sound_from": "; ".join(dict.fromkeys(said for _, said in foreign)),
        **_summary(list(ratios.values())),
        "kinds": {
            kind: _summary([one for one in ratios.values() if one["kind"] == kind])
            for kind in kinds
        },
        "without_box": len({one.key for one in seen}) - len(ratios),
        "picture": str(picture),
    }


def load_model(path: Path) -> tuple[Any, Any, int]:
    """The model of a checkpoint in evaluation mode, its config, and the checkpoint's step.

    Raises:
        UsageError: there is no such checkpoint, or its method makes no attention map.
    """
    saved = checkpoint.load(path)
    name = saved["config"]["method"]
    method = method_named(name)
    config = from_dict(method.config, saved["config"]["model"])
    model: Any = method.module(config)
    if not hasattr(model, "attention"):
        raise UsageError(f"{path}: the method {name} has no attention map; glcm has one")
    model.load_state_dict(saved["model"])
    return model.eval(), config, int(saved["step"])


def look(
    model: Any,
    crop: int,
    mixture: Mixture,
    options: AttentionOptions,
    foreign: list[dict[int, int]],
) -> Iterator[Seen]:
    """Every window of every clip; some clips at a time, so that memory does not grow with them.

    Args:
        model: with an attention map.
        crop: side of its pictures.
        mixture: the clips.
        options: what is measured.
        foreign: for each part of the mixture a row whose sound is foreign to a row; may lack it.
    """
    shown = 0
    for part, others in zip(mixture.parts, foreign, strict=True):
        more = {LANDMARKS} & set(part.shard_set.members) if options.boxes == "mouth" else ()
        wanted = ("json", FRAMES, MEL, *more)
        rows = part.rows[: options.limit]
        reader = ShardReader(part.shard_set)
        for chunk in np.array_split(rows, max(1, len(rows) // CLIPS_AT_ONCE)):
            clips = [reader.read(row, wanted) for row in chunk.tolist()]
            sounds = [reader.read(others[row], ("json", MEL)) for row in chunk.tolist() if others]
            for number in range(options.windows):
                seen = _look_at(model, crop, mixture, options, clips, sounds, number)
                if number == 0:
                    seen = [_shown(one, shown + i < options.shown) for i, one in enumerate(seen)]
                    shown += len(seen)
                yield from (one if number == 0 else replace(one, frame=None) for one in seen)
        reader.close()


def _look_at(
    model: Any,
    crop: int,
    mixture: Mixture,
    options: AttentionOptions,
    clips: list[StoredClip],
    sounds: list[StoredClip],
    number: int,
) -> list[Seen]:
    """The same window of several clips, and of their foreign sounds if there are any."""
    windows, others = (
        [Window(spread(clip.meta["frames"] - mixture.frames, options.windows)[number],
                mixture.frames, 0.5) for clip in several]
        for several in (clips, sounds)
    )  # fmt: skip
    batch = centre(_batch(clips, windows, mixture.short_side), crop)
    mels = [sound.mel(window) for sound, window in zip(sounds, others, strict=True)]
    mel = torch.from_numpy(np.stack(mels)).to(batch.mel) if mels else None
    own, foreign = attention_of(model, batch, mel)
    return [
        Seen(
            clip.meta["key"],
            (clip.meta["label_names"] or [clip.meta["dataset"]])[0],
            boxes_in_crop(clip, window, options.boxes),
            {"learned": own[i], "foreign_sound": foreign[i], "centre": centre_map(len(own[i]))},
            window.start / mixture.fps,
            _middle_frame(batch, i),
        )
        for i, (clip, window) in enumerate(zip(clips, windows, strict=True))
    ]


def _shown(one: Seen, wanted: bool) -> Seen:
    return one if wanted else replace(one, frame=None)


def spread(room: int, count: int) -> list[int]:
    """`count` starts inside 0 .. room at equal distances; the middle for one."""
    return [round(start) for start in np.linspace(0, room, count + 2)[1:-1].tolist()]


def _batch(clips: list[StoredClip], windows: list[Window], side: int) -> Batch:
    frames = windows[0].frames
    video = np.empty((len(clips), frames, side, side, 3), np.uint8)
    for clip, window, out in zip(clips, windows, video, strict=True):
        clip.pictures(window, side, out)
    mels = [clip.mel(window) for clip, window in zip(clips, windows, strict=True)]
    return Batch(
        video=torch.from_numpy(video),
        mel=torch.from_numpy(np.stack(mels)),
        instance=torch.arange(len(clips)),
        start=torch.tensor([window.start for window in windows]),
        keys=tuple(clip.meta["key"] for clip in clips),
    )


def attention_of(model: Any, batch: Batch, mel: torch.Tensor | None) -> tuple[Floats, Floats]:
    """Maps of a prepared batch.

    Args:
        model: with an attention map.
        batch: the clips.
        mel: (B, 80, 3T) foreign sounds; None where there are none.

    Returns:
        (B, H, W) with each clip's own sound, and with the foreign one (NaN without).
    """
    with torch.no_grad():
        found = model.features(batch)
        own = found["att"].double().numpy()
        if mel is None:
            return own, own * np.nan
        grid = found.get("fg", found["fl"])
        query, cells = model.embed_global(grid, model.audio(mel))
        foreign = model.attention(query, cells).view_as(found["att"])
    return own, foreign.double().numpy()


def clip_ratios(seen: list[Seen]) -> dict[str, dict[str, Any]]:
    """By key: `kind`, and for each sort of map the mean ratio over the clip's windows."""
    found: dict[str, dict[str, Any]] = {}
    for one in seen:
        cover = covered(one.boxes, len(one.maps["centre"]))
        if not cover.any():
            continue
        entry = found.setdefault(one.key, {"kind": one.kind, **{name: [] for name in MAPS}})
        for name in MAPS:
            entry[name].append(mass_ratio(one.maps[name], cover))
    return {
        key: {"kind": entry["kind"], **{name: float(np.mean(entry[name])) for name in MAPS}}
        for key, entry in found.items()
    }


def _summary(clips: list[dict[str, Any]]) -> dict[str, Any]:
    ratios = {name: np.array([clip[name] for clip in clips]) for name in MAPS}
    known = {name: values for name, values in ratios.items() if np.isfinite(values).all()}
    return {name: asdict(interval(values)) for name, values in known.items()}


def _folder_of(path: Path) -> Path:
    """The run's folder, where a checkpoint in it is named."""
    return path if path.is_dir() else path.resolve().parent.parent


# --- showing ------------------------------------------------------------------------------------


def draw(path: Path, seen: list[Seen], means: dict[str, float], windows: int) -> None:
    """What was measured: the map of one window of each clip over its middle frame, and the boxes.

    A map is one for a whole window, in which what sounds moves; the ratio is taken with the boxes
    of all its frames, so all are drawn, the middle frame's thick.

    Args:
        path: of the PNG.
        seen: one window a clip.
        means: by key, the clip's ratio over all its windows, as it counts in the table.
        windows: how many those are.
    """
    from matplotlib.figure import Figure

    columns = min(4, len(seen))
    rows = -(-len(seen) // columns)
    figure = Figure(figsize=(2.6 * columns + 1, 3.1 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    top = max(float(one.maps["learned"].max() * one.maps["learned"].size) for one in seen)
    for axes in grid:
        axes.set_axis_off()
    for axes, one in zip(grid, seen, strict=False):
        att = one.maps["learned"]
        axes.imshow(one.frame, extent=(0, 1, 1, 0))
        image = axes.imshow(att * att.size, extent=(0, 1, 1, 0), cmap="inferno", alpha=0.55,
                            vmin=0, vmax=top)  # fmt: skip
        _draw_boxes(axes, one.boxes)
        axes.set_title(_caption(one, means, windows), fontsize=8)
        axes.set(xlim=(0, 1), ylim=(1, 0))
    figure.colorbar(image, ax=grid.tolist(), shrink=0.6, label="attention, x uniform")
    figure.suptitle(
        "Attention of one window a clip over its middle frame. Green: where the source is in each "
        "frame of the\nwindow (thick: in this frame). The ratio is the mass inside all these boxes "
        "over a uniform map's.", fontsize=9,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw_boxes(axes: Any, boxes: Floats) -> None:
    from matplotlib.patches import Rectangle

    for number, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        if np.isfinite(x0):
            width, alpha = (1.8, 1.0) if number == len(boxes) // 2 else (0.5, 0.6)
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="lime",
                                     linewidth=width, alpha=alpha))  # fmt: skip


def _caption(one: Seen, means: dict[str, float], windows: int) -> str:
    """The window's ratio, and beside it the clip's as it counts in the table."""
    cover = covered(one.boxes, len(one.maps["learned"]))
    here = f"{mass_ratio(one.maps['learned'], cover):.2f}" if cover.any() else "no box"
    mean = f"; mean of its {windows} windows {means[one.key]:.2f}" if one.key in means else ""
    return f"{one.key}, window at {one.start_seconds:.1f} s\n{here}{mean}"


def _middle_frame(batch: Batch, clip: int) -> Floats:
    """(H, W, 3) with the contrast stretched to 0 .. 1: normalisation is not undone."""
    frame: Floats = batch.video[clip, :, batch.frames // 2].permute(1, 2, 0).double().numpy()
    frame -= frame.min()
    frame /= max(float(frame.max()), 1e-9)
    return frame


def told(result: dict[str, Any]) -> str:
    """The answer in lines for people."""
    lines = [
        f"attention mass inside the box over a uniform map's (1 = no knowledge), step "
        f"{result['step']}, split {result['split']}, boxes: {result['boxes']}; mean over clips, "
        f"{LEVEL:.0%} bootstrap interval",
    ]
    for label, part in {"all": result, **result["kinds"]}.items():
        words = [
            f"{name.replace('_', ' ')} {part[name]['mean']:.2f} "
            f"[{part[name]['low']:.2f}, {part[name]['high']:.2f}]"
            for name in MAPS
            if name in part
        ]
        lines.append(f"  {label:<8} {part['learned']['clips']:>4} clips: {'; '.join(words)}")
    lines.append(f"  foreign sound is from {result['foreign_sound_from']}")
    if result["without_box"]:
        lines.append(f"  {result['without_box']} clips without a box in the crop left out")
    return "\n".join([*lines, f"overlay: {result['picture']}", how_to_read(result)])


def how_to_read(result: dict[str, Any]) -> str:
    """One sentence about what these numbers say, and what they do not."""
    learned, centre = result["learned"], result["centre"]
    said = f"how to read it: 1 is a uniform map; after step {result['step']:,}, on split "
    said += f"{result['split']}, the map is at {learned['mean']:.2f}"
    if learned["low"] <= centre["mean"]:
        return (
            f"{said}, not clearly above `centre` ({centre['mean']:.2f}): it knows no more than "
            "'look at the middle'"
        )
    foreign = result.get("foreign_sound")
    if foreign and learned["low"] <= foreign["mean"]:
        return (
            f"{said}, above `centre`, but about as good with foreign sound "
            f"({foreign['mean']:.2f}): it looks at what is conspicuous, not at what sounds"
        )
    return f"{said}, above both baselines: it lies on what sounds"


def write(result: dict[str, Any]) -> None:
    """The answer as JSON beside the overlay."""
    file = Path(result["picture"]).with_suffix(".json")
    checkpoint.write_atomically(file, json.dumps(result, indent=1) + "\n")
