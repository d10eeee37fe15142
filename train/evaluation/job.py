"""One round of a task: what is trained on, what is scored, with which encoders."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from train.augment import Augment
from train.config import uses_bf16
from train.evaluation.clips import ClipBatch, ClipView, Look, batched, read_clips, scored_looks
from train.evaluation.config import EvalConfig
from train.evaluation.encoders import Encoders
from train.evaluation.labelled import Example, LabelledSet
from train.evaluation.task import Round, Settings, Task
from train.strangers import strangers


@dataclass(frozen=True)
class Job:
    """What `Task.predict` is given."""

    task: Task
    config: EvalConfig
    round: Round
    labelled: LabelledSet
    train: list[Example]
    val: list[Example]
    test: list[Example]
    classes: tuple[str, ...]
    """Names by number."""
    source: Encoders
    """Never trained itself: see `encoders`."""
    train_pool: list[Example]
    """The training examples of all rounds of the protocol: frozen features are taken of them once.
    """
    test_pool: list[Example]
    """The same of those that are scored, or choose."""
    folder: Path
    """Of this round."""
    frozen: Path
    """Folder of cached features, shared by rounds and tasks of a run."""
    device: torch.device
    workers: int

    @property
    def settings(self) -> Settings:
        """The task's."""
        return self.task.settings

    @property
    def window(self) -> int:
        """Frames of a window; 0 is an example's own length."""
        fps = self.labelled.fps
        return self.settings.window(fps, self.source.window(fps, self.settings.uses_pictures))

    @property
    def view(self) -> ClipView:
        """What is read."""
        return view_of(self.task, self.source)

    @property
    def augment(self) -> Augment:
        """What happens to training clips."""
        return Augment(self.config.augment, self.source.crop, self.config.seed)

    def autocast(self) -> torch.autocast:
        """The region in which networks run; bf16 if the flags say so."""
        enabled = uses_bf16(self.config.precision, self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled)

    def encoders(self) -> Encoders:
        """A copy that may be trained, on the device."""
        return replace(self.source, module=copy.deepcopy(self.source.module).to(self.device))

    def scored(self, examples: list[Example], clips: int | None = None) -> list[Look]:
        """The windows of examples that are scored."""
        settings = self.settings
        count = settings.clips if clips is None else clips
        return scored_looks(examples, self.window, count, settings.crops if clips is None else 1)

    def strangers(self) -> tuple[list[int], str]:
        """For each test example the position of one of another group or source.

        Returns:
            The positions, none where all are of one source; and a word on where they are from.
        """
        rows = [example.row for example in self.test]
        place = {row: number for number, row in enumerate(rows)}
        others, where = strangers(self.labelled.shard_set, rows)
        return [place[others[row]] for row in rows] if others else [], where

    def read(self, examples: list[Example], batches: list[list[Look]]) -> "Reading":
        """Batches as they are, not prepared."""
        return Reading(self, examples, batches)

    def in_batches(self, looks: list[Look]) -> list[list[Look]]:
        """For scoring: windows of one length share a batch."""
        return list(batched(looks, self.settings.batch_size, equal=True))


def view_of(task: Task, source: Encoders) -> ClipView:
    """What a task reads of the clips for these encoders."""
    settings = task.settings
    pictures = settings.pictures if settings.uses_pictures else "none"
    return ClipView(pictures, source.sound if settings.uses_sound else None, task.padding)


def members_of(task: Task, source: Encoders) -> set[str]:
    """Extensions that a task reads for these encoders."""
    view = view_of(task, source)
    return {member for track in range(task.settings.tracks) for member in view.members(track)}


@dataclass(frozen=True)
class Reading:
    """Batches of a job, with their number known."""

    job: Job
    examples: list[Example]
    batches: list[list[Look]]

    def __len__(self) -> int:
        """Batches."""
        return len(self.batches)

    def __iter__(self):  # type: ignore[no-untyped-def]
        """ClipBatch after ClipBatch, on the device."""
        job = self.job
        batch: ClipBatch
        for batch in read_clips(job.labelled.shard_set, self.examples, job.view, self.batches,
                                job.workers):  # fmt: skip
            yield batch.to(job.device)
