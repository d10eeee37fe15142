"""AVE: which event is seen and heard in each second of ten, or none? (Tian et al. 2018.)

A clip is ten segments of a second. For each the sound attends to the cells of its frames by the
local projections (GLCM; `Glcm.segment_attention`); the weighted mean of fl over the second's frames
and the mean of fa over its slices meet in a head of two layers: 28 events and background, class 28.

`ave` learns from the labels of the segments. `ave_weak` knows only which event a video has: the
logits of a video are the largest over its segments (as the code of Tian et al., models_weakly.py).
Both are scored by segment accuracy over all 10 N segments and 29 classes, which on validation clips
chooses the epoch.
"""

from functools import partial

from train.evaluation.events import Events, LossOf, by_segment, by_video
from train.evaluation.task import Round, Settings, Task
from train.metrics import AVE_CLASSES

SEGMENTS = 10
"""Of a clip, one second each."""
EVENTS = Events("ave", AVE_CLASSES, SEGMENTS)


def _task(name: str, about: str, loss_of: LossOf, *known: str) -> Task:
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
        predict=partial(EVENTS.predict, loss_of=loss_of),
        measure=EVENTS.measure,
        examples=EVENTS.examples,
        protocols=("finetune",),
        padding="silence",
        notes=known,
    )


AVE = _task(
    "ave",
    "audio-visual events by the second, 28 and background, segment accuracy",
    by_segment,
)

AVE_WEAK = _task(
    "ave_weak",
    "the same learned from the videos' labels alone",
    by_video,
    "without the 178 background videos of the weak setting, whose ids were never published: "
    "background is learned from the rare training videos without an event",
)
