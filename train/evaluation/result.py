"""What an evaluation leaves: result.json, every prediction, and pictures.

    RUN/eval/NAME/result.json                 the numbers and what they are of
    RUN/eval/NAME/ROUND/predictions.parquet   each example: target, what was said, scores
    RUN/eval/NAME/ROUND/round.json            metrics of the round, and what it was made from
    RUN/eval/NAME/confusion.png               where there are classes
    RUN/eval/NAME/mistakes-ROUND.jpg          the surest of them, where there are classes
    RUN/eval/NAME/attention-ROUND.png, .webp  of the task localization, still and moving

Everything that a number depends on stands in result.json: settings, checkpoint, shards, commit.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from train.session import write_table

if TYPE_CHECKING:
    from train.evaluation.job import Job

EVALUATIONS = "eval"
"""Of a run, the folder with a folder for each result."""
RESULT, PREDICTIONS, ROUND = "result.json", "predictions.parquet", "round.json"
ATTENTION_PICTURES = "attention-*.png"
"""Of the task localization, beside result.json."""
MISTAKES = "mistakes-*.jpg"
"""Of each round of tasks with classes, beside result.json."""
MOVING = ".webp"
"""Ending of pictures that move."""
SHOWN_CLASSES = 60
"""More do not fit a picture of confusions."""
Floats = npt.NDArray[np.float32]


class Mistake(NamedTuple):
    """An example of one class that was said to be of another."""

    score: float
    """Of the class that was said."""
    place: int
    """Among the examples."""
    name: str
    is_: str
    said: str


@dataclass(frozen=True)
class Predictions:
    """What was said about each example of a round."""

    names: list[str]
    groups: list[str]
    targets: list[Any]
    """Classes, transcripts, or classes of segments."""
    said: list[Any]
    """The same, as predicted."""
    classes: tuple[str, ...]
    scores: Floats | None = None
    """(N, C), or (N, S, C) of segments."""
    faceless: list[bool] = field(default_factory=list)
    """Which were seen without a face although one was asked for; empty: nobody asked."""
    history: list[dict[str, float]] = field(default_factory=list)
    """epoch, loss, score of the training."""
    others: dict[str, Floats] = field(default_factory=dict)
    """Scores like `scores` of something else, by name: of one modality alone."""
    numbers: dict[str, list[float]] = field(default_factory=dict)
    """What was measured of each example, by name; NaN where it has none."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the result must know about this round."""

    @classmethod
    def of_scores(
        cls, job: "Job", scores: Floats, faceless: npt.NDArray[np.bool_] | None = None,
        history: Sequence[dict[str, float]] = (),
    ) -> "Predictions":  # fmt: skip
        """The test examples of a job, scored; what is said is the class with the highest score."""
        return cls(
            names=[example.name for example in job.test],
            groups=[example.group for example in job.test],
            targets=[example.target for example in job.test],
            said=scores.argmax(-1).tolist(),
            classes=job.classes,
            scores=scores,
            faceless=[] if faceless is None else faceless.tolist(),
            history=list(history),
        )

    @classmethod
    def of_numbers(
        cls, job: "Job", numbers: dict[str, list[float]], notes: list[str]
    ) -> "Predictions":
        """The test examples of a job, measured: nothing is said about them."""
        nothing: list[Any] = [None] * len(job.test)
        return cls(
            names=[example.name for example in job.test],
            groups=[example.group for example in job.test],
            targets=nothing, said=nothing, classes=(), numbers=numbers, notes=notes,
        )  # fmt: skip

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Targets as an array of classes."""
        return np.array(self.targets, np.int64)

    def mistakes(self) -> list[Mistake]:
        """Of examples with one class each the wrong answers; of others none."""
        single = all(isinstance(target, int) for target in self.targets)
        if self.scores is None or self.scores.ndim != 2 or not (self.classes and single):
            return []
        wrong = np.flatnonzero(np.array(self.said) != self.labels).tolist()
        return [
            Mistake(float(self.scores[i].max()), i, self.names[i], self.classes[self.targets[i]],
                    self.classes[self.said[i]])
            for i in wrong
        ]  # fmt: skip

    def write(self, path: Path) -> None:
        """As Parquet; targets and what was said are JSON, for they may be lists."""
        unknown = pa.nulls(len(self.names), pa.bool_())
        faceless = pa.array(self.faceless, pa.bool_()) if self.faceless else unknown
        scores: dict[str, Any] = {}
        if self.scores is not None:
            flat = self.scores.reshape(len(self.names), -1)
            scores = {"scores": pa.array(list(flat), pa.list_(pa.float32()))}
        for name, other in self.others.items():
            flat = other.reshape(len(self.names), -1)
            scores[f"scores {name}"] = pa.array(list(flat), pa.list_(pa.float32()))
        table = pa.table(
            {
                "name": self.names,
                "group": self.groups,
                "target": [json.dumps(one) for one in self.targets],
                "said": [json.dumps(one) for one in self.said],
                "faceless": faceless,
                **{name: pa.array(of, pa.float64()) for name, of in self.numbers.items()},
                **scores,
            }
        )
        facts = {"classes": self.classes, "history": self.history, "notes": self.notes,
                 "numbers": list(self.numbers),
                 "shape": None if self.scores is None else self.scores.shape}  # fmt: skip
        write_table(path, table.replace_schema_metadata({"glav": json.dumps(facts)}))

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """What `write` wrote."""
        table = pq.read_table(path)
        facts = json.loads(table.schema.metadata[b"glav"])
        scores = None
        if facts["shape"] is not None:
            flat = np.array(table["scores"].to_pylist(), np.float32)
            scores = flat.reshape(facts["shape"])
        faceless = table["faceless"].to_pylist()
        others = {
            name.removeprefix("scores "): np.array(table[name].to_pylist(), np.float32)
            for name in table.column_names
            if name.startswith("scores ")
        }
        return cls(
            names=table["name"].to_pylist(),
            groups=table["group"].to_pylist(),
            targets=[json.loads(one) for one in table["target"].to_pylist()],
            said=[json.loads(one) for one in table["said"].to_pylist()],
            classes=tuple(facts["classes"]),
            scores=scores,
            faceless=[] if None in faceless else faceless,
            history=facts["history"],
            others=others,
            numbers={name: table[name].to_pylist() for name in facts.get("numbers", [])},
            notes=facts.get("notes", []),
        )


def draw_confusion(path: Path, rounds: Sequence[Predictions]) -> bool:
    """Counts of all rounds: rows are the true class, columns what was said.

    Returns:
        Whether there is a picture: not for texts, segments, or more than SHOWN_CLASSES classes.
    """
    from matplotlib.figure import Figure

    from train.metrics import confusion

    classes = rounds[0].classes
    targets = [target for one in rounds for target in one.targets]
    if not classes or len(classes) > SHOWN_CLASSES or not all(isinstance(t, int) for t in targets):
        return False
    said = [guess for one in rounds for guess in one.said]
    counts = confusion(said, targets, len(classes))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 2.5 + 0.28 * len(classes)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
    axes.set_yticks(range(len(classes)), classes, fontsize=7)
    axes.set(xlabel="said", ylabel="true", title=f"{len(targets)} examples")
    for row, column in zip(*np.nonzero(counts), strict=True):
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=6,
                  color="white" if shares[row, column] > 0.5 else "black")  # fmt: skip
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class")
    figure.savefig(path, dpi=110)
    return True
