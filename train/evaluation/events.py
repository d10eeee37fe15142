"""Clips whose seconds are labelled: which event is seen and heard in each, or none? (AVE)

Each second is a segment; see `train.evaluation.segments` for the network. The last class is that of
seconds without an event. Validation clips choose the epoch by the accuracy of their segments.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.errors import UsageError
from train.evaluation.classify import epoch_of
from train.evaluation.clips import ClipBatch, scored_looks
from train.evaluation.finetune import fit
from train.evaluation.job import Job
from train.evaluation.labelled import Example, LabelledSet
from train.evaluation.result import Predictions
from train.evaluation.segments import SegmentClassifier
from train.evaluation.task import Settings
from train.metrics import Score, segment_accuracy

Floats = npt.NDArray[np.float32]
LossOf = Callable[[Tensor, Tensor], Tensor]
"""((B, S, C) logits, (B, S) classes) -> loss."""


@dataclass(frozen=True)
class Events:
    """The labelled seconds of a data set."""

    dataset: str
    classes: int
    """Events and, last, background."""
    seconds: int | None
    """Labelled seconds of a clip; None: as many as the window has."""

    @property
    def background(self) -> int:
        """Class of seconds without an event."""
        return self.classes - 1

    def examples(
        self, labelled: LabelledSet, splits: Sequence[str], settings: Settings
    ) -> list[Example]:
        """Clips of some splits with the classes of their seconds; no more of each than labelled.

        Raises:
            UsageError: frames that do not fill seconds, no clip with segments, a class that is
                none, or a window whose segments would not be the labels'.
        """
        if labelled.fps != round(labelled.fps):
            raise UsageError(f"{labelled.shard_set.name} has {labelled.fps:g} frames a second; "
                             "expected a whole number, or seconds share frames")  # fmt: skip
        count = self.segments(settings, labelled.fps)
        most, found, known = count * round(labelled.fps), [], False
        for planned in labelled.planned(splits):
            row = labelled.row_of.get(planned["key"])
            if row is None:
                continue
            known |= bool(planned["segments"])
            whole = labelled.whole(planned, row, self.seconds_of(planned, count))
            found.append(whole._replace(frames=min(whole.frames, most)))
        if found and not known:
            raise UsageError(f"no clip of {', '.join(splits)} in {labelled.shard_set.name} says "
                             f"when its event is; expected make shards DATASET={self.dataset}"
                             )  # fmt: skip
        return found

    def segments(self, settings: Settings, fps: float) -> int:
        """Of a window.

        Raises:
            UsageError: it is no whole number of seconds, or not as many as are labelled.
        """
        window = settings.window(fps, 0)
        count = round(window / fps)
        if window == 0 or window != count * fps or self.seconds not in (None, count):
            wanted = "whole seconds" if self.seconds is None else f"{self.seconds} s"
            raise UsageError(f"the window is {window} frames ({window / fps:g} s); expected "
                             f"{wanted}, one for each label: leave --frames "
                             f"{'out' if self.seconds is None else 'and --window-seconds out'}"
                             )  # fmt: skip
        return count

    def seconds_of(self, planned: dict[str, Any], count: int) -> list[int]:
        """Classes of a clip's seconds: second t is of a segment if start <= t < end.

        Raises:
            UsageError: a class that is no event.
        """
        classes = [self.background] * count
        for segment in planned["segments"] or []:
            if not 0 <= segment["label"] < self.background:
                raise UsageError(f"{planned['key']} has an event of the class {segment['label']}; "
                                 f"expected 0 to {self.background - 1}")  # fmt: skip
            for second in range(count):
                if segment["start_s"] <= second < segment["end_s"]:
                    classes[second] = segment["label"]
        return classes

    def predict(self, job: Job, loss_of: LossOf) -> Predictions:
        """Train a round and score its segments."""
        torch.manual_seed(job.config.seed)
        count = self.segments(job.settings, job.labelled.fps)
        model = SegmentClassifier(
            job.encoders(), job.settings, self.classes, count, hidden=job.config.hidden,
            dropout=job.config.dropout,
        ).to(job.device)  # fmt: skip
        labels = torch.tensor([example.target for example in job.train])

        def loss(batch: ClipBatch, step: int) -> Tensor:
            ready = batch.augmented(job.augment, step)
            logits = model(ready.video, ready.sound).float()
            return loss_of(logits, labels[batch.examples].to(job.device))

        def validate() -> float:
            truth = np.array([example.target for example in job.val])
            return float((scored(job, model, job.val).argmax(-1) == truth).mean())

        history = fit(
            model, job.config, job.settings.epochs, lambda epoch: epoch_of(job, epoch), loss,
            validate if job.val else None, job.folder, job.device,
        )  # fmt: skip
        found = Predictions.of_scores(job, scored(job, model, job.test), history=history)
        found.notes.extend(self.notes(job, model, count))
        return found

    def notes(self, job: Job, model: SegmentClassifier, seconds: int) -> list[str]:
        """The baseline, clips that were filled up, and what stands in for missing attention."""
        counts = Counter(one for example in job.test for one in example.target)
        share = counts[self.background] / counts.total()
        said = [f"saying background everywhere is right in {share:.1%} of the test segments"]
        short = sum(example.frames < job.window for example in (*job.train, *job.val, *job.test))
        if short:
            said.append(f"{short} clips are shorter than {seconds} s: their last frame is "
                        "repeated, with silence, to all segments")  # fmt: skip
        asked = job.settings.pooling == "full_attention" and job.settings.uses_pictures
        if asked and not model.attends:
            said.append(f"the method {job.source.method} has no `segment_attention`: mean over "
                        "cells")  # fmt: skip
        return said

    def measure(self, predictions: Predictions) -> list[Score]:
        """Segment accuracy over events and background."""
        said, truth, groups = predictions.said, predictions.targets, predictions.groups
        return [segment_accuracy(said, truth, groups, self.classes)]


def by_segment(logits: Tensor, seconds: Tensor) -> Tensor:
    """Cross-entropy of (B, S, C) logits and (B, S) classes, mean over segments."""
    return functional.cross_entropy(logits.flatten(0, 1), seconds.flatten())


def by_video(logits: Tensor, seconds: Tensor) -> Tensor:
    """Cross-entropy of the largest logits over a video's segments and the video's class."""
    background = logits.shape[-1] - 1
    labels = [video_class(row, background) for row in seconds.tolist()]
    return functional.cross_entropy(logits.amax(dim=1), torch.tensor(labels, device=logits.device))


def video_class(seconds: Sequence[int], background: int) -> int:
    """What the weak setting knows: the event of a video, or background where it has none."""
    return next((one for one in seconds if one != background), background)


@torch.no_grad()
def scored(job: Job, model: nn.Module, clips: list[Example]) -> Floats:
    """Probabilities (N, segments, classes) of examples."""
    model.eval()
    rows = []
    looks = scored_looks(clips, job.window, 1, 1)
    for raw in job.read(clips, job.in_batches(looks)):
        batch = raw.centred(job.source.crop)
        with job.autocast():
            logits = model(batch.video, batch.sound)
        rows.append(logits.float().softmax(dim=-1).cpu().numpy())
    joined: Floats = np.concatenate(rows)
    return joined
