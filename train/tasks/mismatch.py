"""Is the sound of a clip in time with its pictures, or 100 to 300 ms early or late?

Every clip is there twice: with its own sound, and with sound from a little earlier or later in the
same clip, as it was recorded. Both show the same frames, and both are cut so that there is sound
for any shift: nothing but time tells them apart. How far is drawn from the clip's name, in whole
frames of the shards: 1 to 3 at 10 frames a second.

Features averaged over time have lost what is asked for, so each frame's are kept, of pictures (in
rows and columns by `--cells`, or `--pooling full_attention --cells 1 1 1`) and of sound; `Coupling`
sees how they vary together. The protocol `linear` learns that alone, on frozen features, `finetune`
the encoders with it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.errors import UsageError
from train.evaluation.classify import learned, scored, targets
from train.evaluation.clips import Look, batched
from train.evaluation.encoders import SOUND
from train.evaluation.finetune import fit
from train.evaluation.frozen import joined
from train.evaluation.heads import Classifier
from train.evaluation.job import Job
from train.evaluation.labelled import Example, LabelledSet
from train.evaluation.result import Predictions
from train.evaluation.task import Settings
from train.evaluation.transcribe import frame_features
from train.metrics import Score, auc_video, average_precision, log_loss
from train.plan import seed_of, shuffled
from train.tasks.dfdc import auc_or_loss

Floats = npt.NDArray[np.float32]
SHIFT_SECONDS = (0.1, 0.3)
"""Least and most, early or late."""
RANK, CONTEXT = 32, 3
"""Of a coupling: dimensions that pictures and sound share, and frames that each entry sees."""
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


class Coupling(nn.Module):
    """How features of pictures and of sound vary together in a window: logits of the two classes.

    The score is the mean over frames of <P v_t, Q a_t>, P and Q over `CONTEXT` frames each, what is
    constant in the window taken out before. A classifier that adds up what it finds in either
    cannot tell the classes apart at all: both have the same pictures, and the same sound.
    """

    def __init__(self, seen: int, heard: int) -> None:
        """For so many channels of pictures and of sound."""
        super().__init__()
        self._parts = [seen, heard]
        self.standardise = nn.BatchNorm1d(seen + heard, affine=False)
        self.of_pictures, self.of_sound = (
            nn.Conv1d(channels, RANK, CONTEXT, padding=CONTEXT // 2, bias=False)
            for channels in self._parts
        )
        self.threshold = nn.Parameter(torch.zeros(()))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, channels), pictures' first -> (B, 2)."""
        rows = self.standardise(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        v, a = rows.transpose(1, 2).split(self._parts, dim=1)
        v, a = self.of_pictures(v), self.of_sound(a)
        v, a = v - v.mean(dim=2, keepdim=True), a - a.mean(dim=2, keepdim=True)
        score = (v * a).mean(dim=2).sum(dim=1) - self.threshold
        return torch.stack([score, -score], dim=1)

    def groups(self, lr_head: float, _lr_encoder: float) -> list[dict[str, object]]:
        """Of an optimiser."""
        return [{"params": list(self.parameters()), "lr": lr_head}]


class Timed(nn.Module):
    """Encoders and a coupling: pictures and sound -> logits."""

    def __init__(self, job: Job) -> None:
        """On a copy of the job's encoders."""
        super().__init__()
        self.frames = Classifier(job.encoders(), job.settings, len(job.classes), per_frame=True)
        self.module = self.frames.module
        self.head = coupling_of(job)

    def forward(self, video: Tensor | None, sound: Tensor | None) -> Tensor:
        """(B, 2)."""
        logits: Tensor = self.head(self.frames.features(video, sound).float())
        return logits

    def groups(self, lr_head: float, lr_encoder: float) -> list[dict[str, object]]:
        """Of an optimiser: the head's parameters and the encoders'."""
        encoders = self.frames.groups(lr_head, lr_encoder)[1]
        return [*self.head.groups(lr_head, lr_encoder), encoders]


def coupling_of(job: Job) -> Coupling:
    """A new one for the job's features."""
    lengths = job.source.wanted(job.settings)
    heard = lengths.get(SOUND, 0)
    return Coupling(sum(lengths.values()) - heard, heard)


def told_apart(job: Job) -> Predictions:
    """Train a round and score its clips.

    Raises:
        UsageError: not both pictures and sound are looked at.
    """
    if job.settings.modality != "V+A":
        raise UsageError(f"modality is {job.settings.modality}; whether sound is in time with "
                         "pictures takes V+A")  # fmt: skip
    torch.manual_seed(job.config.seed)
    if job.settings.protocol == "linear":
        return _frozen(job)
    model = Timed(job).to(job.device)
    history = learned(job, model)
    return Predictions.of_scores(job, *scored(job, model, job.test), history)


def _frozen(job: Job) -> Predictions:
    """A coupling alone, on frozen features of whole examples."""
    known = frame_features(job, joined(job.train_pool, job.test_pool))
    train, val, test = (
        [known[one.name][0] for one in part] for part in (job.train, job.val, job.test)
    )
    labels, model = torch.from_numpy(targets(job.train)), coupling_of(job).to(job.device)

    def loss(looks: list[Look], _step: int) -> Tensor:
        rows = [look.example for look in looks]
        logits = model(torch.stack([train[row] for row in rows]).to(job.device)).float()
        return functional.cross_entropy(logits, labels[rows].to(job.device))

    def validate() -> float:
        return auc_or_loss(_probabilities(job, model, val), targets(job.val))

    history = fit(model, job.config, job.settings.epochs, lambda epoch: _batches(job, epoch), loss,
                  validate if val else None, job.folder, job.device)  # fmt: skip
    return Predictions.of_scores(job, _probabilities(job, model, test), history=history)


def _batches(job: Job, epoch: int) -> list[list[Look]]:
    """The training examples in random order, those of one length together."""
    order = shuffled(len(job.train), seed_of(job.config.seed, epoch, "order")).tolist()
    looks = [Look(row, 0, job.train[row].frames, 0.5) for row in order]
    alike = sorted(looks, key=lambda look: look.frames)  # stable: of one length still by chance
    batches = list(batched(alike, job.settings.batch_size, equal=True))
    places = shuffled(len(batches), seed_of(job.config.seed, epoch, "batches")).tolist()
    return [batches[place] for place in places]


@torch.no_grad()
def _probabilities(job: Job, model: Coupling, examples: list[Tensor]) -> Floats:
    """(N, 2)."""
    model.eval()
    rows = [model(frames[None].to(job.device)).softmax(-1)[0].cpu() for frames in examples]
    found: Floats = torch.stack(rows).float().numpy()
    return found


def measure(predictions: Predictions) -> list[Score]:
    """AUC, average precision, log-loss; both versions of a clip are drawn together."""
    assert predictions.scores is not None
    shifted = predictions.scores[:, SHIFTED], predictions.labels, predictions.groups
    return [auc_video(*shifted), average_precision(*shifted), log_loss(*shifted)]
