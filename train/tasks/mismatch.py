"""Is the sound of a clip in time with its pictures, or 100 to 300 ms early or late?

Every clip is there twice: with its own sound, and with sound from a little earlier or later in the
same clip, as it was recorded. Both show the same frames, and both are cut so that there is sound
for any shift: nothing but time tells them apart. How far is drawn from the clip's name, in whole
frames of the shards: 1 to 3 at 10 frames a second.

Features averaged over time have lost what is asked for. So logits are those of tenths of a second,
from local features of the pictures, which the sound weighs (`SegmentClassifier`), and of the sound;
their mean over the window is the window's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from train.errors import UsageError
from train.evaluation.classify import learned, scored
from train.evaluation.job import Job
from train.evaluation.labelled import Example, LabelledSet
from train.evaluation.result import Predictions
from train.evaluation.segments import SegmentClassifier
from train.evaluation.task import Settings
from train.metrics import Score, auc_video, average_precision, log_loss
from train.plan import seed_of

SHIFT_SECONDS = (0.1, 0.3)
"""Least and most, early or late."""
STEPS_A_SECOND = 10
"""Logits are averaged over so many."""
IN_TIME, SHIFTED = 0, 1


def pairs(labelled: LabelledSet, splits: Sequence[str], settings: Settings) -> list[Example]:
    """Each clip of some splits that is there, twice.

    Raises:
        UsageError: frames so far apart that a shift is none, or a clip without room for it.
    """
    shifts = shifts_of(labelled.fps)
    margin, found = max(shifts), []
    for whole in labelled.clips(splits):
        frames = whole.frames - 2 * margin
        if frames < 1:
            raise UsageError(f"{whole.name} has {whole.frames} frames; expected more than "
                             f"{2 * margin}, or its sound cannot be shifted")  # fmt: skip
        cut = whole._replace(start=margin, frames=frames)
        later = shifts[seed_of("mismatch", whole.name) % len(shifts)]
        found.append(cut._replace(name=f"{whole.name}#in-time", target=IN_TIME))
        found.append(cut._replace(name=f"{whole.name}#shifted", target=SHIFTED, sound_later=later))
    return found


def shifts_of(fps: float) -> list[int]:
    """All shifts in whole frames, early and late.

    Raises:
        UsageError: no frame lies within them.
    """
    least, most = (seconds * fps for seconds in SHIFT_SECONDS)
    later = [frames for frames in range(1, int(most + 1e-6) + 1) if frames >= least - 1e-6]
    if not later:
        raise UsageError(
            f"{fps:g} frames a second are too few to shift sound by {SHIFT_SECONDS[0]} to "
            f"{SHIFT_SECONDS[1]} s; expected 4 or more"
        )
    return [*(-frames for frames in reversed(later)), *later]


class Timed(nn.Module):
    """The mean over a window of the logits of its steps."""

    def __init__(self, job: Job) -> None:
        """On a copy of the job's encoders."""
        super().__init__()
        steps = max(round(job.window / job.labelled.fps * STEPS_A_SECOND), 1)
        self.steps = SegmentClassifier(
            job.encoders(), job.settings, len(job.classes), steps, hidden=job.config.hidden,
            dropout=job.config.dropout,
        )  # fmt: skip

    def forward(self, video: Tensor | None, sound: Tensor | None) -> Tensor:
        """(B, 2)."""
        logits: Tensor = self.steps(video, sound)
        return logits.mean(dim=1)

    def groups(self, lr_head: float, lr_encoder: float) -> list[dict[str, object]]:
        """Of an optimiser."""
        return self.steps.groups(lr_head, lr_encoder)


def told_apart(job: Job) -> Predictions:
    """Train a round and score its clips."""
    torch.manual_seed(job.config.seed)
    model = Timed(job).to(job.device)
    history = learned(job, model)
    return Predictions.of_scores(job, *scored(job, model, job.test), history)


def measure(predictions: Predictions) -> list[Score]:
    """AUC, average precision, log-loss; both versions of a clip are drawn together."""
    assert predictions.scores is not None
    shifted = predictions.scores[:, SHIFTED], predictions.labels, predictions.groups
    return [auc_video(*shifted), average_precision(*shifted), log_loss(*shifted)]
