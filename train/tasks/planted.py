"""The planted corpus: global and local information that is known (`make shards DATASET=planted`).

    planted_class      ten classes of scene, body and timbre, as UCF101
    planted_words      which of 20 words a mouth shows: windows of one word, as LRW
    planted_sentences  all words of a clip, CTC, WER and CER, as LRS2
    planted_mismatch   is the sound in time, or 100 to 300 ms early or late? As DFDC
    planted_events     which class sounds in each second, or none? As AVE

Words are seen, not heard. Five sets of three mouth shapes in four orders each are the 20 words, so
that features that do not know the order of a word's pictures get a quarter of them right at most.
`--pictures box` cuts the frames to the performer, as a perfect detector would; `--pooling
full_attention` lets the sound find it in whole frames. `localization`, `avsync` and `av_retrieval`
take these shards, too. Each clip has a performer of its own.
"""

from collections.abc import Sequence
from functools import partial

from train.evaluation.classify import accuracy, classify
from train.evaluation.events import Events, by_segment
from train.evaluation.labelled import Example, LabelledSet
from train.evaluation.task import Round, Settings, Task
from train.evaluation.transcribe import error_rates, transcribe, utterances
from train.evaluation.words import all_words
from train.tasks.dfdc import auc_or_loss
from train.tasks.lrs import DECODING
from train.tasks.mismatch import measure as measure_mismatch, pairs, told_apart

OBTAIN = "nothing is downloaded: `make shards DATASET=planted` renders it"
ROUNDS = (Round("test", ("planted:test",), ("planted:train",), ("planted:val",)),)
WORDS = (
    *("aiu", "iua", "uai", "aui", "mao", "aom", "oma", "moa", "oem", "emo", "moe", "ome"),
    *("uae", "aeu", "eua", "uea", "iom", "omi", "mio", "imo"),
)
"""The vocabulary, in the order of the classes."""
WORD_SECONDS, JITTER_SECONDS = 0.7, 0.1
"""Window about the middle of a word, which lasts 0.4 to 0.63 s; and how far training ones are off.
"""
NUMBERS = {word: number for number, word in enumerate(WORDS)}
EVENTS = Events("planted", 11, None)
"""Ten classes and background, in as many seconds as the window has."""


def words(labelled: LabelledSet, splits: Sequence[str], settings: Settings) -> list[Example]:
    """Every word of the clips of some splits."""
    frames = settings.window(labelled.fps, round(WORD_SECONDS * labelled.fps))
    jitter = round(JITTER_SECONDS * labelled.fps)
    return all_words(labelled, splits, NUMBERS, frames, jitter)


CLASS = Task(
    name="planted_class",
    about="planted corpus: ten classes of scene, body and timbre, top-1",
    dataset="planted",
    profile="glcm",
    obtain=OBTAIN,
    rounds=ROUNDS,
    settings=Settings(modality="V", frames=32, clips=3, train_clips=3, epochs=10),
    predict=classify,
    measure=accuracy,
)

SPOKEN = Task(
    name="planted_words",
    about="planted corpus: 20 words of three mouth shapes, seen only, top-1",
    dataset="planted",
    profile="glcm",
    obtain=OBTAIN,
    rounds=ROUNDS,
    settings=Settings(modality="V", window_seconds=WORD_SECONDS, clips=1, epochs=20),
    predict=classify,
    measure=accuracy,
    examples=words,
    classes=WORDS,
)

SENTENCES = Task(
    name="planted_sentences",
    about="planted corpus: all words of a clip, seen only, CTC, WER and CER",
    dataset="planted",
    profile="glcm",
    obtain=OBTAIN,
    rounds=ROUNDS,
    settings=Settings(modality="V", frames=0, clips=1, epochs=40, batch_size=8),
    predict=transcribe,
    measure=error_rates,
    examples=utterances,
    protocols=("finetune", "linear"),
    notes=(DECODING,),
)

MISMATCH = Task(
    name="planted_mismatch",
    about="planted corpus: is the sound in time, or 100 to 300 ms off? AUC over clips",
    dataset="planted",
    profile="glcm",
    obtain=OBTAIN,
    rounds=ROUNDS,
    settings=Settings(modality="V+A", features="l", cells=(1, 4, 4), clips=3, epochs=40),
    predict=told_apart,
    measure=measure_mismatch,
    examples=pairs,
    protocols=("linear", "finetune"),
    classes=("in time", "shifted"),
    quality=auc_or_loss,
)

SECONDS = Task(
    name="planted_events",
    about="planted corpus: which class sounds in each second, or none, segment accuracy",
    dataset="planted",
    profile="glcm",
    obtain=OBTAIN,
    rounds=ROUNDS,
    settings=Settings(
        modality="V+A", features="l", pooling="full_attention", window_seconds=7, clips=1, epochs=20
    ),
    predict=partial(EVENTS.predict, loss_of=by_segment),
    measure=EVENTS.measure,
    examples=EVENTS.examples,
    protocols=("finetune",),
    padding="silence",
    notes=("clips of another length than 7 s: --window-seconds, in whole seconds",),
)

PLANTED_TASKS = (CLASS, SPOKEN, SENTENCES, MISMATCH, SECONDS)
"""All of them."""
