"""Does the attention map lie on what sounds? Nothing is trained.

Shards whose samples know boxes answer it: `--boxes truth` of the demo corpus, or the `face` or its
`mouth` where faces were followed. The measures are those of `train.evaluation.maps`; higher is
better in all of them. Beside the map stand three baselines:

    :foreign_sound  the same pictures with the sound of another speaker or source, which may be of
                    the same class: a map that is as good with it does not look for this source
    :other_class    the same with the sound of a clip of another class, where classes are known and
                    no speaker has two: a map that is as good with it looks at what is conspicuous,
                    not at what sounds
    :centre         a Gaussian in the middle of the picture, where cameramen put things
    :chance         of pointing_game: the boxes' share of the picture, as a random peak would hit;
                    of mass_ratio it is 1, a uniform map

Several windows of a clip are looked at; a clip counts once, with their mean. Where no box is known
(Kinetics-Sounds) there are only the overlay and how flat the maps are. The overlay, a dozen clips
from best to worst, lies beside result.json: attention-ROUND.png, and .webp, which moves.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from train.boxes import LANDMARKS, Boxes, boxes_in_crop, centre_map
from train.errors import UsageError
from train.evaluation.clips import ClipView, Look, batched, read_clips
from train.evaluation.job import Job
from train.evaluation.labelled import Example, any_clips
from train.evaluation.maps import (
    MEASURES,
    area_of,
    attention_maps,
    entropy_share,
    hits,
    require_attention,
)
from train.evaluation.overlay import OWN, UNSEEN, Seen, Shown, animate, as_pixels, draw
from train.evaluation.result import MOVING, Predictions
from train.evaluation.task import Round, Settings, Task
from train.metrics import Score, average
from train.progress import with_progress
from train.read import ShardReader, Window
from train.strangers import of_another_class

SHOWN = 12
"""Clips in the overlay."""
LARGE = 0.25
"""Of the picture: smaller boxes cannot have an IoU of 0.5 with half of it."""
FOREIGN, OTHER_CLASS = ":foreign_sound", ":other_class"
MAPS = (OWN, FOREIGN, OTHER_CLASS, ":centre")
"""Endings of the numbers of the learned map and of those it is compared with."""
WHOSE = {FOREIGN: "foreign sound", OTHER_CLASS: "sound of another class"}
CHANCE, ENTROPY, AREA = "pointing_game:chance", "attention_entropy_share", "box_area"
KINDS_TOLD = 12
"""Kinds of sources with a line of their own; a face is one kind, whatever it says."""
Floats = npt.NDArray[np.float64]


def predict(job: Job) -> Predictions:
    """Look at all windows of all clips, and draw some.

    Raises:
        UsageError: the method has no attention map, or pictures are not whole frames.
    """
    require_attention(job.source)
    settings = job.settings
    if settings.pictures != "frames" or settings.crops != 1 or settings.modality != "V+A":
        raise UsageError("boxes are places in whole frames, and maps need sound: leave --pictures, "
                         "--crops and --modality as they are")  # fmt: skip
    others, where = job.strangers()
    kinds = kinds_of(job)
    strangers = {
        FOREIGN: others,
        OTHER_CLASS: of_another_class(kinds, [example.group for example in job.test]),
    }
    rows: list[dict[str, list[float]]] = [{} for _ in job.test]
    places = np.linspace(0, len(job.test) - 1, SHOWN).round().astype(int).tolist()
    shown: dict[int, list[Seen]] = {place: [] for place in places}
    for one in seen(job, strangers, set(shown)):
        for name, value in numbers_of(one, job.source.crop).items():
            rows[one.example].setdefault(name, []).append(value)
        if one.example in shown:
            shown[one.example].append(one)
    numbers = {name: [mean(row[name]) for row in rows] for name in rows[0]}
    show(job, shown, numbers)
    return Predictions.of_numbers(job, numbers, notes(numbers, kinds, settings.boxes, where))


# --- windows ------------------------------------------------------------------------------------


def seen(job: Job, strangers: Mapping[str, list[int]], shown: set[int]) -> Iterator[Seen]:
    """Every window of every example with its maps and boxes; of those `shown` with its frames.

    Args:
        job: of the task.
        strangers: ending -> whose sound is foreign to each example; none where there are none.
        shown: examples.
    """
    encoders = job.encoders()
    encoders.module.eval()
    reader = ShardReader(job.labelled.shard_set)
    batches = list(batched(job.scored(job.test), job.settings.batch_size, equal=True))
    sounds = {ending: foreign_sounds(job, batches, others)
              for ending, others in strangers.items() if others}  # fmt: skip
    reads = with_progress(job.read(job.test, batches), "attention maps", "batches", len(batches))
    for looks, raw in zip(batches, reads, strict=True):
        batch = raw.centred(job.source.crop)
        assert batch.video is not None
        assert batch.sound is not None
        foreign = [next(each) for each in sounds.values()]
        found = attention_maps(encoders, batch.video, batch.sound, foreign)
        maps = dict(zip((OWN, *sounds), found, strict=True))
        for number, look in enumerate(looks):
            boxes = boxes_of(reader, job.test[look.example], look, job.settings.boxes)
            frames = UNSEEN
            if look.example in shown:
                frames = as_pixels(batch.video[number].permute(1, 2, 3, 0).cpu().numpy())
            own = {ending: each[number] for ending, each in maps.items()}
            yield Seen(look.example, look.start, frames, own, boxes)
    reader.close()


def foreign_sounds(job: Job, batches: list[list[Look]], others: list[int]) -> Iterator[Tensor]:
    """For each batch the sounds of others, cut at the same part of their clips."""
    looks = [[elsewhere(job, look, others[look.example]) for look in batch] for batch in batches]
    view = ClipView("none", job.source.sound)
    for raw in read_clips(job.labelled.shard_set, job.test, view, looks, job.workers):
        sound = raw.to(job.device).centred(job.source.crop).sound
        assert sound is not None
        yield sound


def elsewhere(job: Job, look: Look, other: int) -> Look:
    """A window in another clip, as far from its beginning to its end as this one is."""
    room, theirs = (max(job.test[n].frames - look.frames, 0) for n in (look.example, other))
    return look._replace(example=other, start=round(look.start * theirs / room) if room else 0)


def boxes_of(reader: ShardReader, example: Example, look: Look, which: Boxes) -> Floats:
    """Of the window's frames, once each where the window repeats them."""
    clip = reader.read(example.row, ("json", *([LANDMARKS] if which == "mouth" else [])))
    frames = min(look.frames, example.frames)
    start = min(look.start, example.frames - frames)
    return boxes_in_crop(clip, Window(start, frames, look.shift), which)


def numbers_of(one: Seen, side: int) -> dict[str, float]:
    """What is measured of a window, by name and map."""
    maps = {**one.maps, ":centre": centre_map(len(one.maps[OWN]))}
    found = {
        name + ending: value
        for ending, att in maps.items()
        for name, value in hits(att, one.boxes, side).items()
    }
    area = area_of(one.boxes)
    return found | {CHANCE: area, AREA: area, ENTROPY: entropy_share(one.maps[OWN])}


def mean(values: list[float]) -> float:
    """Over the windows that have a box; NaN if none has."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else np.nan


# --- results ------------------------------------------------------------------------------------


def measure(predictions: Predictions) -> list[Score]:
    """Every measure of the map and of its baselines over the clips with a box, intervals by clip.

    Without any box, how flat the maps are.
    """
    numbers = predictions.numbers
    if not np.isfinite(numbers["pointing_game"]).any():
        return [average(ENTROPY, numbers[ENTROPY], higher_is_better=False)]
    names = [name + ending for name in MEASURES for ending in (*MAPS, ":chance")]
    return [
        average(name, numbers[name], unit="ratio" if name.startswith("mass") else "fraction")
        for name in names
        if name in numbers
    ]


def notes(numbers: dict[str, list[float]], kinds: list[str], boxes: Boxes, where: str) -> list[str]:
    """Where the comparison is from, each kind of clip, and how to read it."""
    pointing = np.array(numbers["pointing_game"])
    known = np.isfinite(pointing)
    if not known.any():
        return [f"no clip has a box ({boxes}) inside the picture: overlay only. The demo corpus "
                "knows `truth`; shards made with faces know `face` and `mouth`"]  # fmt: skip
    said = [f"boxes: {boxes}; foreign sound is from {where}"]
    if missing := int((~known).sum()):
        said.append(f"{missing} clips without a box in the picture are left out")
    large = float((np.array(numbers[AREA])[known] >= LARGE).mean())
    if large < 1:
        said.append(
            f"{1 - large:.0%} of the clips have boxes of less than a quarter of the picture, which "
            "cannot reach ciou@0.5, for which half of the picture is marked"
        )
    ratios = np.array(numbers["mass_ratio"])
    names = sorted({kind for kind, here in zip(kinds, known, strict=True) if here})
    for kind in names[:KINDS_TOLD] if boxes == "truth" and len(names) > 1 else []:
        these = known & (np.array(kinds) == kind)
        said.append(f"{kind}: {these.sum()} clips, pointing_game {pointing[these].mean():.2f}, "
                    f"mass_ratio {ratios[these].mean():.2f}")  # fmt: skip
    return [*said, how_to_read({name: np.array(of)[known] for name, of in numbers.items()})]


def how_to_read(numbers: dict[str, Floats]) -> str:
    """One sentence about what the mass ratio says, and what it does not."""
    learned = average("mass_ratio", numbers["mass_ratio"], unit="ratio")
    centre = float(numbers["mass_ratio:centre"].mean())
    said = f"a uniform map's mass_ratio is 1, this one's {learned.value:.2f}"
    if learned.high < centre:
        return f"{said}, below :centre ({centre:.2f}): it lies elsewhere than on what sounds"
    if not learned.low > centre:  # also where one clip alone has no interval
        return (
            f"{said}, not clearly above :centre ({centre:.2f}): it knows no more than 'look at the "
            "middle'"
        )
    whose = OTHER_CLASS if f"mass_ratio{OTHER_CLASS}" in numbers else FOREIGN
    foreign = numbers.get(f"mass_ratio{whose}")
    if foreign is not None and not learned.low > foreign.mean():
        return (
            f"{said}, above :centre, but about as good with {WHOSE[whose]} ({foreign.mean():.2f}): "
            "it looks at what is conspicuous, not at what sounds"
        )
    return f"{said}, above its baselines: it lies on what sounds"


def kinds_of(job: Job) -> list[str]:
    """Each clip's first label, or the data set's name."""
    names = job.labelled.label_names()
    return [names.get(example.name) or job.labelled.shard_set.name for example in job.test]


def show(job: Job, shown: dict[int, list[Seen]], numbers: dict[str, list[float]]) -> None:
    """Draw the clips, still and moving, the best first and those without a box last."""

    def caption(number: int) -> str:
        pointing, ratio = (numbers[name][number] for name in ("pointing_game", "mass_ratio"))
        return f"pointing {pointing:.2f}, mass ratio {ratio:.2f}" if ratio == ratio else "no box"

    order = sorted(
        shown, key=lambda number: np.nan_to_num(-numbers["pointing_game"][number], nan=1)
    )
    pictures = [
        Shown(job.test[number].name, job.labelled.fps, shown[number], caption(number))
        for number in order
    ]
    still = job.folder.parent / f"attention-{job.round.name}.png"
    draw(still, pictures)
    animate(still.with_suffix(MOVING), pictures)


LOCALIZATION = Task(
    name="localization",
    about="does the attention map lie on what sounds: pointing game, cIoU, mass ratio; frozen",
    dataset="demo",
    profile="glcm",
    obtain="make demo, or name other shards with held-out clips (SHARDS=path)",
    rounds=(Round("val", ("val",)),),
    settings=Settings(protocol="frozen", modality="V+A", clips=4, batch_size=8),
    predict=predict,
    measure=measure,
    examples=any_clips,
    protocols=("frozen",),
)
