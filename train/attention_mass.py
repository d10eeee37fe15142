"""`python -m train attention`: does the attention map lie on what sounds?

    python -m train attention --checkpoint runs/glcm-tiny --shards data/shards/demo-glcm

Shards whose samples know boxes (the demo corpus' truth, or faces) answer it. The share of a map's
mass inside the box is divided by the box's share of the picture, which is the mass of a uniform
map: 1 is no knowledge, more is better. Beside it stand two baselines: a Gaussian in the middle of
the picture, where cameramen put things, and the same maps made with another clip's sound. A map
that is as good with foreign sound looks at what is conspicuous, not at what sounds.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.format import MEL_SLICES_PER_FRAME
from train import checkpoint
from train.augment import PLAIN_SIDE, centre
from train.batch import Batch
from train.config import from_dict
from train.errors import UsageError
from train.methods import method_named
from train.mixture import Mixture, open_mixture, parse_shards
from train.read import FRAMES, MEL, ShardReader, Window

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Boxes = Literal["truth", "face"]

GAUSSIAN_SIGMA = 0.25
"""Of the centre baseline, over the picture's side."""
RESAMPLES = 10_000
LEVEL = 0.95
"""Of the interval: bootstrap over clips, percentiles."""
MAPS = ("learned", "foreign_sound", "centre")


@dataclass(frozen=True)
class AttentionOptions:
    """What is measured."""

    checkpoint: Path
    """A run's folder, of which the newest checkpoint is taken, or a checkpoint."""
    shards: str
    """Sets with boxes, as in `pretrain`; the paths are read, @n and @w do not matter."""
    split: str = "val"
    """Which split."""
    boxes: Boxes = "truth"
    """`truth` of a generated corpus, or the first `face` track of each sample."""
    windows: int = 4
    """Windows of each clip, evenly spread over it, >= 1; a clip counts once, with their mean."""
    limit: int | None = None
    """At most so many clips; None takes all."""
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
    """One window of a clip, ready for the model."""

    key: str
    kind: str
    """Its first label, or the data set's name."""
    batch: Batch
    """Of this window alone, centre crop."""
    boxes: Floats
    """(T, 4): x0, y0, x1, y1 over the crop's side, 0 .. 1 inside it; NaN where there is none."""


@dataclass(frozen=True)
class Ratio:
    """Mean over clips of mass inside the box / the box's share, and its interval."""

    mean: float
    low: float
    high: float
    clips: int


# --- geometry -----------------------------------------------------------------------------------


def covered(boxes: Floats, side: int) -> Floats:
    """How much of each cell of a side x side grid the boxes cover, averaged over them.

    Args:
        boxes: (T, 4) x0, y0, x1, y1 over the picture's side; rows with NaN do not count.
        side: cells in a row of the grid.

    Returns:
        (side, side), row by row from the top, 0 .. 1; zeros where there is no box at all.
    """
    known = boxes[np.isfinite(boxes).all(axis=1)]
    if not len(known):
        return np.zeros((side, side))
    edges = np.arange(side)
    spans = []
    for first, last in ((1, 3), (0, 2)):  # down, across
        low, high = known[:, first, None] * side, known[:, last, None] * side
        spans.append((np.minimum(high, edges + 1) - np.maximum(low, edges)).clip(0, 1))
    cover: Floats = np.einsum("ty,tx->yx", *spans) / len(known)
    return cover


def mass_ratio(att: Floats, cover: Floats) -> float:
    """Share of a map's mass inside the box over that of a uniform map.

    Args:
        att: (H, W), sums to 1.
        cover: (H, W) from `covered`.

    Returns:
        1 for a uniform map, 0 for one that misses the box; NaN where no box is in the picture.
    """
    share = float(cover.mean())
    return float((att * cover).sum()) / share if share > 0 else float("nan")


def centre_map(side: int) -> Floats:
    """(side, side): a Gaussian about the middle, summing to 1."""
    place = (np.arange(side) + 0.5) / side - 0.5
    line = np.exp(-0.5 * (place / GAUSSIAN_SIGMA) ** 2)
    plane: Floats = np.outer(line, line) / line.sum() ** 2
    return plane


def boxes_in_crop(meta: dict[str, Any], window: Window, which: Boxes) -> Floats:
    """The boxes of a window's frames, in the coordinates of the evaluation's crop.

    A sample's boxes are in displayed pixels of its source; the loader cuts the middle square out
    of the stored frame, and `train.augment.centre` the middle 7/8 of that.

    Returns:
        (T, 4) as in `Seen.boxes`.
    """
    source = _truth_boxes(meta, window) if which == "truth" else _face_boxes(meta, window)
    width, height = float(meta["source"]["width"]), float(meta["source"]["height"])
    crop = PLAIN_SIDE * min(width, height)
    corner = np.array([width - crop, height - crop]) / 2
    return (source - np.tile(corner, 2)) / crop


def _truth_boxes(meta: dict[str, Any], window: Window) -> Floats:
    """Nearest in time to the middle of each frame's interval."""
    rows = np.array(meta["truth"]["boxes"], np.float64).reshape(-1, 5)
    if not len(rows):
        return np.full((window.frames, 4), np.nan)
    numerator, denominator = map(int, meta["fps"].split("/"))
    middle = (window.start + np.arange(window.frames) + 0.5) * denominator / numerator
    # Times of the truth count from the window's start, the frames' from t0.
    times = rows[:, 0] + (meta["window_start"] - meta["t0"])
    nearest = np.abs(times[None] - middle[:, None]).argmin(axis=1)
    return rows[nearest, 1:]


def _face_boxes(meta: dict[str, Any], window: Window) -> Floats:
    boxes = np.full((window.frames, 4), np.nan)
    for track in meta["faces"][:1]:
        part = track["box"][window.start : window.start + window.frames]
        for index, box in enumerate(part):
            if box is not None:
                boxes[index] = box
    return boxes


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
        the same for each label; `without_box`, clips that know none inside the crop; `picture`.

    Raises:
        UsageError: no clip has a box, or the method has no attention map.
    """
    model, config = load_model(options.checkpoint)
    mixture = open_mixture(
        parse_shards(options.shards, options.data),
        frames=config["model"].frames,
        split=options.split,
    )
    seen = list(windows_of(mixture, options, config["model"].crop))
    maps = attention_of(model, [one.batch for one in seen])
    ratios = clip_ratios(seen, maps)
    if not ratios:
        raise UsageError(
            f"no clip of split {options.split} has a box ({options.boxes}) inside the crop; shards "
            "of the demo corpus know `truth`, shards made with FACES=on know `face`"
        )
    picture = options.picture or _folder_of(options.checkpoint) / f"attention-{options.split}.png"
    draw(picture, seen, maps["learned"], options)
    return {
        "checkpoint": str(options.checkpoint),
        "step": config["step"],
        "split": options.split,
        "boxes": options.boxes,
        **_summary(list(ratios.values())),
        "kinds": {
            kind: _summary([one for one in ratios.values() if one["kind"] == kind])
            for kind in sorted({one["kind"] for one in ratios.values()})
        },
        "without_box": len({one.key for one in seen}) - len(ratios),
        "picture": str(picture),
    }


def load_model(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The model of a checkpoint, in evaluation mode, and its `model` config and `step`.

    Raises:
        UsageError: there is no such checkpoint, or its method makes no attention map.
    """
    saved = checkpoint.load(path)
    method = method_named(saved["config"]["method"])
    config = from_dict(method.config, saved["config"]["model"])
    model = method.module(config)
    if not hasattr(model, "features"):
        raise UsageError(f"{path}: the method {saved['config']['method']} has no attention map")
    model.load_state_dict(saved["model"])
    return model.eval(), {"model": config, "step": saved["step"]}


def windows_of(mixture: Mixture, options: AttentionOptions, crop: int) -> Iterator[Seen]:
    """Evenly spread windows of each clip, clip after clip."""
    count = 0
    for part in mixture.parts:
        reader = ShardReader(part.shard_set)
        for row in part.rows.tolist():
            if options.limit is not None and count >= options.limit:
                break
            count += 1
            clip = reader.read(row, ("json", FRAMES, MEL))
            room = clip.meta["frames"] - mixture.frames
            for start in sorted(
                {round(x) for x in np.linspace(0, room, options.windows + 2)[1:-1]}
            ):
                window = Window(start, mixture.frames, 0.5)
                video = np.empty((1, mixture.frames, *[mixture.short_side] * 2, 3), np.uint8)
                clip.pictures(window, mixture.short_side, video[0])
                yield Seen(
                    clip.meta["key"],
                    (clip.meta["label_names"] or [clip.meta["dataset"]])[0],
                    centre(_batch(clip.meta["key"], video, clip.mel(window), start), crop),
                    boxes_in_crop(clip.meta, window, options.boxes),
                )
        reader.close()


def spread(room: int, count: int) -> list[int]:
    """`count` starts inside 0 .. room at equal distances, the middle for one; none twice."""
    return sorted({round(start) for start in np.linspace(0, room, count + 2)[1:-1].tolist()})


def _batch(key: str, video: Any, mel: Any, start: int) -> Batch:
    if mel.shape[1] != MEL_SLICES_PER_FRAME * video.shape[1]:
        raise UsageError(f"{key}: {mel.shape[1]} mel slices for {video.shape[1]} frames")
    return Batch(
        video=torch.from_numpy(video),
        mel=torch.from_numpy(mel[None].copy()),
        instance=torch.zeros(1, dtype=torch.int64),
        start=torch.tensor([start]),
        keys=(key,),
    )


def attention_of(model: Any, batches: list[Batch]) -> dict[str, list[Floats]]:
    """Maps (H, W) of every window: with its own sound, with another clip's, and the baseline."""
    maps: dict[str, list[Floats]] = {name: [] for name in MAPS}
    for index, batch in enumerate(batches):
        stranger = _stranger(batches, index)
        sounds = [batch.mel] + ([stranger.mel] if stranger is not None else [])
        with torch.no_grad():
            found = [_map(model, batch, mel) for mel in sounds]
        maps["learned"].append(found[0])
        maps["foreign_sound"].append(found[1] if stranger is not None else found[0] * np.nan)
        maps["centre"].append(centre_map(len(found[0])))
    return maps


def _stranger(batches: list[Batch], index: int) -> Batch | None:
    """A window of another clip, half the list away if that is another one."""
    order = np.roll(np.arange(len(batches)), -(index + len(batches) // 2))
    others = (batches[i] for i in order if batches[i].keys != batches[index].keys)
    return next(others, None)


def _map(model: Any, batch: Batch, mel: Tensor) -> Floats:
    found: Floats = model.features(replace(batch, mel=mel))["att"][0].double().numpy()
    return found


def clip_ratios(seen: list[Seen], maps: dict[str, list[Floats]]) -> dict[str, dict[str, Any]]:
    """By key: `kind`, and for each sort of map the mean ratio over the clip's windows."""
    found: dict[str, dict[str, Any]] = {}
    for index, one in enumerate(seen):
        cover = covered(one.boxes, len(maps["learned"][index]))
        if not cover.any():
            continue
        entry = found.setdefault(one.key, {"kind": one.kind, **{name: [] for name in MAPS}})
        for name in MAPS:
            entry[name].append(mass_ratio(maps[name][index], cover))
    return {
        key: {"kind": entry["kind"], **{name: float(np.mean(entry[name])) for name in MAPS}}
        for key, entry in found.items()
    }


def _summary(clips: list[dict[str, Any]]) -> dict[str, Any]:
    ratios = {name: np.array([clip[name] for clip in clips]) for name in MAPS}
    return {
        name: asdict(interval(values))
        for name, values in ratios.items()
        if np.isfinite(values).all()
    }


def _folder_of(path: Path) -> Path:
    """The run's folder, where a checkpoint in it is named."""
    return path if path.is_dir() else path.resolve().parent.parent


# --- showing ------------------------------------------------------------------------------------


def draw(path: Path, seen: list[Seen], maps: list[Floats], options: AttentionOptions) -> None:
    """Middle frames with the map laid over them and the box drawn in, a picture a clip."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    first = {one.key: index for index, one in reversed(list(enumerate(seen)))}
    chosen = sorted(first.values())[: options.shown]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.9 * rows), layout="constrained")
    for place, index in enumerate(chosen):
        one = seen[index]
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(_picture(one.batch), extent=(0, 1, 1, 0))
        axes.imshow(maps[index], extent=(0, 1, 1, 0), cmap="inferno", alpha=0.55,
                    interpolation="bilinear", vmin=0)  # fmt: skip
        x0, y0, x1, y1 = one.boxes[len(one.boxes) // 2]
        if np.isfinite(x0):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="lime"))
        ratio = mass_ratio(maps[index], covered(one.boxes, len(maps[index])))
        axes.set_title(f"{one.key}\n{ratio:.2f} x uniform", fontsize=8)
        axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    log.info("overlay: %s", path)


def _picture(batch: Batch) -> Floats:
    """The middle frame (H, W, 3) in 0 .. 1, contrast stretched: normalisation is not undone."""
    frame: Floats = batch.video[0, :, batch.frames // 2].permute(1, 2, 0).double().numpy()
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
    if result["without_box"]:
        lines.append(f"  {result['without_box']} clips without a box in the crop left out")
    return "\n".join([*lines, f"overlay: {result['picture']}"])


def write(result: dict[str, Any]) -> None:
    """The answer as JSON beside the overlay."""
    file = Path(result["picture"]).with_suffix(".json")
    checkpoint.write_atomically(file, json.dumps(result, indent=1) + "\n")
