"""What a task is: which clips are trained on and scored, what of them is looked at, and the metric.

A task is a line in `train.tasks.TASKS` and a file that builds a `Task`; everything here can be
overridden on the command line, see `train.evaluation.config`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from train.boxes import Boxes
from train.errors import UsageError

if TYPE_CHECKING:
    from train.evaluation.config import EvalConfig
    from train.evaluation.job import Job
    from train.evaluation.labelled import Example, LabelledSet
    from train.evaluation.result import Predictions
    from train.metrics import Score

Protocol = Literal["finetune", "linear", "svm", "knn", "frozen"]
Pictures = Literal["frames", "lip", "face", "box", "none"]
Modality = Literal["V", "A", "V+A"]
Features = Literal["both", "g", "l"]
Pooling = Literal["crop_avg", "full_avg", "full_attention"]
Average = Literal["prob", "logit"]
Faceless = Literal["centre", "unknown"]
Padding = Literal["repeat", "silence"]

CHOICES: dict[str, tuple[Any, ...]] = {
    "protocol": get_args(Protocol),
    "pictures": get_args(Pictures),
    "modality": get_args(Modality),
    "features": get_args(Features),
    "pooling": get_args(Pooling),
    "average": get_args(Average),
    "boxes": get_args(Boxes),
}


Cells = tuple[int, int, int]
CellPool = Literal["avg", "max"]


@dataclass(frozen=True)
class Settings:
    """How examples are looked at and learned from."""

    protocol: Protocol = "finetune"
    """finetune: everything is trained; linear, svm, knn: on frozen features; frozen: the task
    trains nothing."""
    pictures: Pictures = "frames"
    """Whole frames, or the crops of the first face: lip, face; box: frames cut to the box of the
    source, which generated corpora know; none for tasks of sound."""
    modality: Modality = "V"
    """Which encoders are used: V, A or V+A."""
    frames: int | None = None
    """Window, frames of the shards' clock; None is `window_seconds`, 0 the whole example."""
    window_seconds: float | None = None
    """Window, seconds, whatever the shards' clock; None is the preset's."""
    clips: int = 10
    """Windows of an example that are scored, evenly spread; 0 tiles it with windows."""
    train_clips: int = 1
    """Windows of an example that frozen protocols learn from."""
    crops: int = 1
    """1: the centre; 3: along the long side."""
    average: Average = "prob"
    """What is averaged over windows and crops: probabilities or logits."""
    features: Features = "both"
    """Visual features: of both paths, the global (g) or the local one (l)."""
    pooling: Pooling = "full_avg"
    """Over the grid: mean (of crops or of whole frames), or by the attention map."""
    layer: str = ""
    """Another map of the visual network instead of its features, such as a stage: res2 ... res5 of
    E_v^l, conv2x ... conv5x of AVID, `fused` of co-attention (with sound: modality V+A)."""
    cells: Cells = (1, 1, 1)
    """Parts of time, rows and columns of the grid in which features are averaged, side by side; 1
    1 1 averages all, more parts keep when and where."""
    cell_pool: CellPool = "avg"
    """The mean of a cell, or its maximum, as AVID's linear probes."""
    tracks: int = 1
    """Faces of a clip that are scored, 1 or 2: the highest score of the positive class counts."""
    boxes: Boxes = "truth"
    """Where the source is: `truth` of a generated corpus, the `face` or its `mouth`."""
    epochs: int = 20
    """Of fine-tuning."""
    batch_size: int = 16
    """Clips a step of fine-tuning."""
    validation: float = 0.1
    """Part of the training groups that choose the epoch where there is no validation split; 0
    trains on all and takes the last epoch."""
    context: int = 1
    """Of sentences, on frozen features: frames about each that the linear layer sees, odd."""
    beam: int = 0
    """Of sentences: hypotheses that CTC decoding keeps; 0 takes the likeliest path (greedy)."""

    def __post_init__(self) -> None:
        """Ranges and choices."""
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}"
                )
        least = {"clips": 0, "train_clips": 1, "crops": 1, "epochs": 1, "batch_size": 2, "beam": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)}; expected {low} or more")
        object.__setattr__(self, "cells", tuple(self.cells))
        if min(self.cells) < 1:
            raise UsageError(
                f"cells is {self.cells}; expected parts of time, rows and columns, >= 1"
            )
        if self.pooling == "full_attention" and self.cells[1:] != (1, 1):
            raise UsageError(
                f"pooling full_attention takes one mean over the grid, and cells is {self.cells}; "
                "give --cells 1 1 1"
            )
        if not self.uses_pictures and (self.layer or self.cells[1:] != (1, 1)):
            raise UsageError(
                f"layer is {self.layer!r} and cells {self.cells}; a task of sound alone has no "
                "pictures: leave --layer out and give --cells PARTS 1 1"
            )
        if self.context < 1 or self.context % 2 == 0:
            raise UsageError(f"context is {self.context}; expected an odd number of frames")
        if self.crops not in (1, 3):
            raise UsageError(f"crops is {self.crops}; expected 1 or 3")
        if self.tracks not in (1, 2):
            raise UsageError(f"tracks is {self.tracks}; expected 1 or 2")
        if self.window_seconds is not None and self.window_seconds <= 0:
            raise UsageError(f"window_seconds is {self.window_seconds:g}; expected more than 0")
        if self.frames is not None and self.frames < 0:
            raise UsageError(f"frames is {self.frames}; expected 0 (all) or more")
        if self.uses_pictures and self.pictures == "none":
            raise UsageError(
                f"modality {self.modality} needs pictures; expected frames, lip, face, box"
            )
        if self.pooling == "full_attention" and self.pictures != "frames":
            raise UsageError(
                f"pooling full_attention looks for the source in whole frames, and pictures is "
                f"{self.pictures!r}; give --pictures frames"
            )

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {**asdict(self), "cells": list(self.cells)}

    def window(self, fps: float, usual: int) -> int:
        """Frames of a window; 0 is an example's own length.

        Args:
            fps: frames a second of the shards.
            usual: where neither frames nor seconds are said.
        """
        if self.frames is not None:
            return self.frames
        if self.window_seconds is not None:
            return max(round(self.window_seconds * fps), 1)
        return usual

    @property
    def uses_pictures(self) -> bool:
        """Whether visual features are used."""
        return "V" in self.modality

    @property
    def uses_sound(self) -> bool:
        """Whether sound is read: as a feature, or for the attention map."""
        return "A" in self.modality or self.pooling == "full_attention"


@dataclass(frozen=True)
class Round:
    """One training and one scoring: a fold, or a split."""

    name: str
    """Such as fold1."""
    test: tuple[str, ...]
    """Splits that are scored."""
    train: tuple[str, ...] = ()
    """Splits that are trained on."""
    val: tuple[str, ...] = ()
    """Splits that choose the epoch; empty: a part of the training groups, by seed."""


@dataclass(frozen=True)
class Task:
    """A downstream evaluation."""

    name: str
    about: str
    """One line: what is measured, by whose protocol."""
    dataset: str
    """Canonical name of the data set; its shards are looked for at DATA/shards/DATASET-PROFILE."""
    profile: str
    obtain: str
    """What to download, where to put it."""
    rounds: "tuple[Round, ...] | Callable[[LabelledSet], tuple[Round, ...]]"
    """Folds or splits; a function where they depend on the data."""
    settings: Settings
    predict: "Callable[[Job], Predictions]"
    """Train on a round and score it."""
    measure: "Callable[[Predictions], list[Score]]"
    """The metrics of a round's predictions, the headline first."""
    examples: "Callable[[LabelledSet, Sequence[str], Settings], list[Example]] | None" = None
    """What is scored of the clips of some splits; None: each clip with its first label."""
    protocols: tuple[Protocol, ...] = ("finetune", "linear", "svm", "knn")
    classes: tuple[str, ...] = ()
    """Names, where they are not the data set's own labels."""
    notes: tuple[str, ...] = field(default=())
    """What a reader of the result must know."""
    faceless: Faceless = "centre"
    """Clips without a face, where one is asked for: seen by the middle of their frames, or not
    trained on and scored the same for all classes."""
    padding: Padding = "repeat"
    """A window beyond an example's end: from its beginning again, or last frame and silence."""
    quality: "Callable[[Any, Any], float] | None" = None
    """What chooses the epoch: (scores (N, C), labels (N,)) -> higher is better; None: accuracy."""

    also_reads: "Callable[[EvalConfig], tuple[str, ...]] | None" = None
    """Further shard sets that predictions depend on."""

    def with_settings(self, **changes: Any) -> "Task":
        """The same with other settings; None leaves a setting as it is."""
        given = {name: value for name, value in changes.items() if value is not None}
        settings = replace(self.settings, **given)
        if "window_seconds" in given and "frames" not in given:
            settings = replace(settings, frames=None)  # the task's own frames would go before it
        if settings.protocol not in self.protocols:
            raise UsageError(
                f"task {self.name} has no protocol {settings.protocol!r}; it has "
                f"{', '.join(self.protocols)}"
            )
        return replace(self, settings=settings)

    def for_set(self, labelled: "LabelledSet") -> "Task":
        """The same with the rounds that a set has."""
        return replace(self, rounds=self.rounds(labelled)) if callable(self.rounds) else self

    @property
    def all_rounds(self) -> tuple[Round, ...]:
        """The rounds, once they are known; see `for_set`."""
        assert isinstance(self.rounds, tuple)
        return self.rounds

    def on_split(self, split: str) -> "Task":
        """The same, scored on another split; only where nothing is trained."""
        if any(one.train for one in self.all_rounds):
            raise UsageError(
                f"--split {split}: task {self.name} learns from some splits and is scored on "
                f"others, as its protocol says; choose --rounds ({self._known()}) instead"
            )
        return replace(self, rounds=(Round(split.split(":")[-1], (split,)),))

    def _known(self) -> str:
        return ", ".join(one.name for one in self.all_rounds)

    def rounds_named(self, names: str) -> tuple[Round, ...]:
        """The rounds of a comma-separated list; all for an empty one."""
        known = {one.name: one for one in self.all_rounds}
        wanted = [name.strip() for name in names.split(",") if name.strip()] or list(known)
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise UsageError(
                f"task {self.name} has no round {', '.join(unknown)}; it has {', '.join(known)}"
            )
        return tuple(known[name] for name in wanted)


def folds(dataset: str, count: int) -> tuple[Round, ...]:
    """Cross-validation over the splits DATASET:fold1 .. : each is scored by the others."""
    names = [f"{dataset}:fold{number}" for number in range(1, count + 1)]
    return tuple(
        Round(name.split(":")[1], (name,), tuple(other for other in names if other != name))
        for name in names
    )


def official_splits(dataset: str, count: int) -> tuple[Round, ...]:
    """Splits DATASET:train1, DATASET:test1 and so on; the mean over them is the result."""
    return tuple(
        Round(f"split{i}", (f"{dataset}:test{i}",), (f"{dataset}:train{i}",))
        for i in range(1, count + 1)
    )
