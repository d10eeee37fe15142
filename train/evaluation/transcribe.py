"""Utterance -> text: logits for every frame, trained with CTC, decoded without a language model.

Paper §4.1, methods §7: features are averaged over the grid only, those of the slow path stand for
the frames up to the next one, the head works on each frame, and the log-softmax is float32. The
epoch is chosen by the character error rate, which moves earlier than that of words.

The protocol `linear` is not the paper's: a linear layer on the frozen features of each frame, which
are computed once; a CPU can do that.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from train import ctc
from train.errors import UsageError
from train.evaluation.clips import ClipBatch, Look, training_looks
from train.evaluation.finetune import fit
from train.evaluation.frozen import hash_of, joined
from train.evaluation.heads import Classifier
from train.evaluation.job import Job, Reading
from train.evaluation.kept import keep
from train.evaluation.labelled import Example, LabelledSet
from train.evaluation.result import Predictions
from train.evaluation.task import Settings
from train.evaluation.words import alone
from train.metrics import Score, cer, wer
from train.models.attention import full_precision
from train.plan import seed_of, shuffled
from train.progress import with_progress

log = logging.getLogger(__name__)

History = list[dict[str, float]]
LONGEST_SECONDS = 16.0
"""Longer utterances are not learned from: LRS has some of minutes. None is left out of a test."""
USUAL_SECONDS = 4.0
"""A batch holds no more frames than `batch_size` utterances of this length, so that memory does not
depend on which utterances meet."""


def utterances(labelled: LabelledSet, splits: Sequence[str], settings: Settings) -> list[Example]:
    """Each clip of some splits that is there, with what is said in it.

    Raises:
        UsageError: a clip has no transcript.
    """
    one_group = alone(labelled)
    found = []
    for planned in labelled.planned(splits):
        row = labelled.row_of.get(planned["key"])
        if row is None:
            continue
        if not (planned["transcript"] or "").strip():
            raise UsageError(f"{planned['key']} of {labelled.shard_set.name} has no transcript; "
                             "leave it out of the split, or give it one")  # fmt: skip
        example = labelled.whole(planned, row, planned["transcript"])
        found.append(example._replace(group=planned["key"]) if one_group else example)
    return found


def transcribe(job: Job) -> Predictions:
    """Train a round and write down what it reads in the test utterances."""
    torch.manual_seed(job.config.seed)
    learned, notes = learnable(job.train, job.labelled.fps)
    trained = linear if job.settings.protocol == "linear" else finetuned
    texts, faceless, history = trained(replace(job, train=learned))
    return Predictions(
        names=[example.name for example in job.test],
        groups=[example.group for example in job.test],
        targets=[example.target for example in job.test],
        said=texts,
        classes=(),
        faceless=faceless,
        history=history,
        notes=notes,
    )


def error_rates(predictions: Predictions) -> list[Score]:
    """Corpus WER and CER."""
    spoken = predictions.targets, predictions.said, predictions.groups
    return [wer(*spoken), cer(*spoken)]


# --- training -----------------------------------------------------------------------------------


def learnable(examples: Sequence[Example], fps: float) -> tuple[list[Example], list[str]]:
    """The utterances that CTC can learn from, and sentences about those it cannot.

    Raises:
        UsageError: none is left, or a transcript has an unknown character.
    """
    required = [ctc.required_frames(ctc.encode(example.target)) for example in examples]
    short = [e for e, needed in zip(examples, required, strict=True) if e.frames < needed]
    long = [example for example in examples if example.frames > LONGEST_SECONDS * fps]
    notes = []
    if short:
        notes.append(
            f"{len(short)} of {len(examples)} training utterances have fewer frames than CTC needs "
            f"for their text and were not learned from, such as {short[0].name}"
        )
    if long:
        notes.append(
            f"{len(long)} of {len(examples)} training utterances are longer than "
            f"{LONGEST_SECONDS:g} s and were not learned from, such as {long[0].name}; "
            "`manifests --window 15` cuts them between words"
        )
    for note in notes:
        log.warning("%s", note)
    left_out = {example.name for example in (*short, *long)}
    kept = [example for example in examples if example.name not in left_out]
    if not kept:
        raise UsageError(f"none of {len(examples)} training utterances is left: {'; '.join(notes)}")
    return kept, notes


def finetuned(job: Job) -> tuple[list[str], list[bool], History]:
    """Encoders and head trained together: texts, which show no face, history."""
    model = _classifier(job)

    def validate() -> float:
        texts, _ = read(job, model, job.val, 0)
        return 1 - cer([str(example.target) for example in job.val], texts).value

    history = fit(
        model, job.config, job.settings.epochs, lambda epoch: epoch_of(job, epoch),
        finetuning_loss(job, model), validate if job.val else None, job.folder, job.device,
    )  # fmt: skip
    keep(job, model, "text")
    return *read(job, model, job.test, job.settings.beam), history


def _classifier(job: Job) -> Classifier:
    model = Classifier(
        job.encoders(), job.settings, ctc.CLASSES, hidden=job.config.hidden,
        dropout=job.config.dropout, per_frame=True,
    )  # fmt: skip
    return model.to(job.device)


def epoch_of(job: Job, epoch: int) -> Reading:
    """The utterances of an epoch: batches of like lengths, in random order."""
    return job.read(job.train, _batches(job, epoch))


def _batches(job: Job, epoch: int) -> list[list[Look]]:
    looks = training_looks(job.train, 0, job.config.seed, epoch)
    most_frames = round(job.settings.batch_size * USUAL_SECONDS * job.labelled.fps)
    batches = alike(looks, job.settings.batch_size, most_frames)
    order = shuffled(len(batches), seed_of(job.config.seed, epoch, "batches"))
    return [batches[place] for place in order.tolist()]


def alike(looks: Sequence[Look], size: int, most_frames: int) -> list[list[Look]]:
    """Batches of like lengths; how many depends on the lengths alone, not on their order.

    Args:
        looks: windows; those of one length stay in this order.
        size: most windows a batch.
        most_frames: of a batch, the padding counted in; one longer window is a batch of its own.
    """
    batches: list[list[Look]] = []
    for look in sorted(looks, key=lambda look: look.frames):
        count = len(batches[-1]) + 1 if batches else 1
        if batches and count <= min(size, most_frames // look.frames):
            batches[-1].append(look)
        else:
            batches.append([look])
    return batches


def finetuning_loss(job: Job, model: nn.Module) -> Callable[[ClipBatch, int], Tensor]:
    """CTC of augmented utterances."""
    labels = _labels(job)

    def loss(batch: ClipBatch, step: int) -> Tensor:
        ready = batch.augmented(job.augment, step)
        targets = [labels[number] for number in batch.examples.tolist()]
        return ctc_loss(model(ready.video, ready.sound), batch.lengths, targets)

    return loss


def ctc_loss(logits: Tensor, lengths: Tensor, targets: list[Tensor]) -> Tensor:
    """The mean over utterances of the loss divided by the number of labels.

    Args:
        logits: (B, T, ctc.CLASSES).
        lengths: (B,) frames of each utterance.
        targets: labels of each.
    """
    with full_precision(logits):
        return functional.ctc_loss(
            logits.float().log_softmax(-1).transpose(0, 1),
            torch.cat(targets).to(logits.device),
            lengths,
            torch.tensor([len(target) for target in targets]),
            blank=ctc.BLANK,
            zero_infinity=True,
        )


def _labels(job: Job) -> list[Tensor]:
    return [torch.tensor(ctc.encode(example.target)) for example in job.train]


# --- reading ------------------------------------------------------------------------------------


@torch.no_grad()
def read(
    job: Job, model: nn.Module, examples: list[Example], beam: int
) -> tuple[list[str], list[bool]]:
    """What a trained model reads in whole utterances, and in which it sees no face.

    Args:
        job: says how to look.
        model: pictures and sound -> logits (B, T, ctc.CLASSES).
        examples: in any order.
        beam: hypotheses kept; 0 is greedy.
    """
    model.eval()
    texts, faceless = [""] * len(examples), [False] * len(examples)
    for raw in job.read(examples, job.in_batches(whole(examples))):
        found = ctc.transcribe(_log_p(job, model, raw), raw.lengths.numpy(), beam or None)
        for number, text, none in zip(
            raw.examples.tolist(), found, raw.faceless.tolist(), strict=True
        ):
            texts[number], faceless[number] = text, none
    return texts, faceless


def whole(examples: Sequence[Example]) -> list[Look]:
    """Each utterance from beginning to end, by length: those of one length share a batch."""
    looks = [Look(number, 0, example.frames, 0.5) for number, example in enumerate(examples)]
    return sorted(looks, key=lambda look: look.frames)


def _log_p(job: Job, model: nn.Module, raw: ClipBatch) -> npt.NDArray[np.float32]:
    """Log-probabilities (B, T, ctc.CLASSES)."""
    batch = raw.centred(job.source.crop)
    with job.autocast():
        logits = model(batch.video, batch.sound)
    log_p: npt.NDArray[np.float32] = logits.float().log_softmax(-1).cpu().numpy()
    return log_p


# --- on frozen features -------------------------------------------------------------------------


def linear(job: Job) -> tuple[list[str], list[bool], History]:
    """A linear layer on frozen features: texts, which show no face, history."""
    known = frame_features(job, joined(job.train_pool, job.test_pool))
    train, test = ([known[one.name][0] for one in part] for part in (job.train, job.test))
    faceless = [known[one.name][1] for one in job.test]
    frames = torch.cat(train)
    mean, deviation = frames.mean(0), frames.std(0).clamp(min=1e-6)
    train, test = ([(one - mean) / deviation for one in part] for part in (train, test))
    labels = _labels(job)
    model = _Linear(len(mean), job.settings.context).to(job.device)

    def loss(batch: list[Look], step: int) -> Tensor:
        rows = [look.example for look in batch]
        lengths = torch.tensor([len(train[row]) for row in rows])
        inputs = pad_sequence([train[row] for row in rows], batch_first=True)
        return ctc_loss(model(inputs.to(job.device)), lengths, [labels[row] for row in rows])

    history = fit(model, job.config, job.settings.epochs, lambda epoch: _batches(job, epoch), loss,
                  None, job.folder, job.device)  # fmt: skip
    with torch.no_grad():
        log_p = [model(one[None].to(job.device)).log_softmax(-1).cpu().numpy() for one in test]
    beam = job.settings.beam or None
    texts = [ctc.transcribe(one, [one.shape[1]], beam)[0] for one in log_p]
    return texts, faceless, history


class _Linear(nn.Module):
    """Logits of a frame, linear in its features and those of the frames about it."""

    def __init__(self, channels: int, context: int) -> None:
        super().__init__()
        self.layer = nn.Conv1d(channels, ctc.CLASSES, context, padding=context // 2)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, channels) -> (B, T, classes)."""
        logits: Tensor = self.layer(frames.transpose(1, 2))
        return logits.transpose(1, 2)

    def groups(self, lr_head: float, _lr_encoder: float) -> list[dict[str, object]]:
        """Of an optimiser."""
        return [{"params": list(self.parameters()), "lr": lr_head}]


def frame_features(job: Job, examples: list[Example]) -> dict[str, tuple[Tensor, bool]]:
    """(T, channels) of each utterance by name, and whether it shows no face; kept on disk."""
    path = job.frozen / f"frames-{hash_of(job, examples, None)}-{job.settings.features}.npz"
    if not path.is_file():
        features, faceless = _extracted(job, examples)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
        np.savez(temporary, frames=torch.cat(features).numpy(), faceless=faceless)
        temporary.replace(path)
    stored = np.load(path)
    parts = torch.from_numpy(stored["frames"]).split([one.frames for one in examples])  # type: ignore[no-untyped-call]
    return {
        one.name: (part, bool(none))
        for one, part, none in zip(examples, parts, stored["faceless"], strict=True)
    }


@torch.no_grad()
def _extracted(job: Job, examples: list[Example]) -> tuple[list[Tensor], list[bool]]:
    classifier = _classifier(job).eval()
    features: list[Tensor] = [torch.empty(0)] * len(examples)
    faceless = [False] * len(examples)
    batches = job.in_batches(whole(examples))
    for raw in with_progress(job.read(examples, batches), "features", "batches", len(batches)):
        batch = raw.centred(job.source.crop)
        with job.autocast():
            found = classifier.features(batch.video, batch.sound).float().cpu()
        for row, number in enumerate(raw.examples.tolist()):
            features[number] = found[row, : int(raw.lengths[row])]
            faceless[number] = bool(raw.faceless[row])
    return features, faceless
