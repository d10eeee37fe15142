"""AVE: which event is seen and heard in each second of ten, or none? (Tian et al. 2018.)

A clip is ten segments of a second. For each the sound attends to the cells of its frames by the
local projections (GLCM; `Glcm.segment_attention`); the weighted mean of fl over the second's frames
and the mean of fa over its slices meet in a head of two layers: 28 events and background, class 28.

`ave` learns from the labels of the segments. `ave_weak` knows only which event a video has: the
logits of a video are the largest over its segments (as the code of Tian et al., models_weakly.py).
Both are scored by segment accuracy over all 10 N segments and 29 classes, which on validation clips
chooses the epoch.
"""

from collections import Counter
from collections.abc import Callable, Sequence
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
from train.evaluation.task import Round, Settings, Task
from train.metrics import AVE_CLASSES, Score, segment_accuracy

SEGMENTS = 10
"""Of a clip, one second each."""
BACKGROUND = AVE_CLASSES - 1
"""Class of seconds without an event."""
Floats = npt.NDArray[np.float32]


def examples(labelled: LabelledSet, splits: Sequence[str], settings: Settings) -> list[Example]:
    """Clips of some splits with the classes of their ten seconds; at most ten seconds of each.

    Raises:
        UsageError: frames that do not fill seconds, no clip with segments, a class that is none,
            or a window of other than ten seconds, whose segments would not be the labels'.
    """
    if labelled.fps != round(labelled.fps):
        raise UsageError(f"{labelled.shard_set.name} has {labelled.fps:g} frames a second; "
                         "expected a whole number, or seconds share frames")  # fmt: skip
    window = settings.window(labelled.fps, 0)
    if window != SEGMENTS * labelled.fps:
        raise UsageError(f"the window is {window} frames ({window / labelled.fps:g} s); expected "
                         f"{SEGMENTS} s, one for each label: leave --frames and --window-seconds "
                         "out")  # fmt: skip
    most = SEGMENTS * round(labelled.fps)
    found, known = [], False
    for planned in labelled.planned(splits):
        row = labelled.row_of.get(planned["key"])
        if row is None:
            continue
        known |= bool(planned["segments"])
        whole = labelled.whole(planned, row, seconds_of(planned))
        found.append(whole._replace(frames=min(whole.frames, most)))
    if found and not known:
        raise UsageError(f"no clip of {', '.join(splits)} in {labelled.shard_set.name} says when "
                         "its event is; expected make shards DATASET=ave")  # fmt: skip
    return found


def seconds_of(planned: dict[str, Any]) -> list[int]:
    """Classes of a clip's ten seconds: second t is of a segment if start <= t < end.

    Raises:
        UsageError: a class outside of 0 .. 27.
    """
    classes = [BACKGROUND] * SEGMENTS
    for segment in planned["segments"] or []:
        if not 0 <= segment["label"] < BACKGROUND:
            raise UsageError(f"{planned['key']} has an event of the class {segment['label']}; "
                             f"expected 0 to {BACKGROUND - 1}")  # fmt: skip
        for second in range(SEGMENTS):
            if segment["start_s"] <= second < segment["end_s"]:
                classes[second] = segment["label"]
    return classes


def video_class(seconds: Sequence[int]) -> int:
    """What the weak setting knows: the event of a video, or background where it has none."""
    return next((one for one in seconds if one != BACKGROUND), BACKGROUND)


def predict_fully(job: Job) -> Predictions:
    """Learn from the segments' labels."""
    return _predict(job, by_segment)


def predict_weakly(job: Job) -> Predictions:
    """Learn from the videos' labels."""
    return _predict(job, by_video)


def by_segment(logits: Tensor, seconds: Tensor) -> Tensor:
    """Cross-entropy of (B, S, C) logits and (B, S) classes, mean over segments."""
    return functional.cross_entropy(logits.flatten(0, 1), seconds.flatten())


def by_video(logits: Tensor, seconds: Tensor) -> Tensor:
    """Cross-entropy of the largest logits over a video's segments and the video's class."""
    labels = [video_class(row) for row in seconds.tolist()]
    return functional.cross_entropy(logits.amax(dim=1), torch.tensor(labels, device=logits.device))


def _predict(job: Job, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Predictions:
    torch.manual_seed(job.config.seed)
    model = SegmentClassifier(
        job.encoders(), job.settings, AVE_CLASSES, SEGMENTS, hidden=job.config.hidden,
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
    found.notes.extend(notes(job, model))
    return found


@torch.no_grad()
def scored(job: Job, model: nn.Module, clips: list[Example]) -> Floats:
    """Probabilities (N, 10, 29) of examples."""
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


def notes(job: Job, model: SegmentClassifier) -> list[str]:
    """The baseline, clips that were filled up, and what stands in for missing attention."""
    counts = Counter(one for example in job.test for one in example.target)
    share = counts[BACKGROUND] / counts.total()
    said = [f"saying background everywhere is right in {share:.1%} of the test segments"]
    short = sum(example.frames < job.window for example in (*job.train, *job.val, *job.test))
    if short:
        said.append(f"{short} clips are shorter than {SEGMENTS} s: their last frame is repeated, "
                    "with silence, to ten segments")  # fmt: skip
    if (
        job.settings.pooling == "full_attention"
        and job.settings.uses_pictures
        and not model.attends
    ):
        said.append(f"the method {job.source.method} has no `segment_attention`: mean over cells")
    return said


def measure(predictions: Predictions) -> list[Score]:
    """Segment accuracy over 29 classes."""
    return [segment_accuracy(predictions.said, predictions.targets, predictions.groups)]


def _task(name: str, about: str, predict: Callable[[Job], Predictions], *known: str) -> Task:
    return Task(
        name=name,
        about=about,
        dataset="ave",
        profile="glcm",
        obtain="download AVE_Dataset.zip, which the README of the authors' repository AVE-ECCV18 "
        "names, and unpack it",
        rounds=(Round("test", ("ave:test",), ("ave:train",), ("ave:val",)),),
        settings=Settings(
            modality="V+A",
            features="l",
            pooling="full_attention",
            window_seconds=SEGMENTS,
            clips=1,
            epochs=40,
        ),
        predict=predict,
        measure=measure,
        examples=examples,
        protocols=("finetune",),
        padding="silence",
        notes=known,
    )


AVE = _task(
    "ave",
    "audio-visual events by the second, 28 and background, segment accuracy",
    predict_fully,
)

AVE_WEAK = _task(
    "ave_weak",
    "the same learned from the videos' labels alone",
    predict_weakly,
    "without the 178 background videos of the weak setting, whose ids were never published: "
    "background is learned from the rare training videos without an event",
)
