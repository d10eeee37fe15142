"""GRID: sentences of six words such as `bin blue at f two now` (Cooke et al. 2006).

Six tasks of words cut 13 frames about the middle of one of the six words and classify them as LRW
does: grid_commands, grid_colours, grid_prepositions, grid_letters, grid_digits, grid_adverbs;
`grid` is grid_letters. grid_sentences reads whole sentences as LRS2 does.

There is no official split. Where the manifest has folds (one speaker, by sentence), all five are
scored; else its test split is (unseen speakers). With one speaker, a tenth of the training
sentences chooses the epoch.
"""

from collections.abc import Sequence
from dataclasses import replace

from train.evaluation.classify import accuracy, classify
from train.evaluation.labelled import Example, LabelledSet
from train.evaluation.task import Round, Settings, Task, folds
from train.evaluation.transcribe import error_rates, transcribe, utterances
from train.evaluation.words import word_examples
from train.tasks.lrs import DECODING

FRAMES = 13
"""Half a second at 25 frames a second: the word and what the mouth does before and after it."""
JITTER = 2
"""Frames that training windows may lie off the word's middle."""
FOLDS = 5
DIGITS = "zero one two three four five six seven eight nine"
WORDS = {
    "commands": "bin lay place set",
    "colours": "blue green red white",
    "prepositions": "at by in with",
    "letters": " ".join("abcdefghijklmnopqrstuvxyz"),
    "digits": DIGITS,
    "adverbs": "again now please soon",
}
"""The words of each place in the sentence, in the order of the places."""
OBTAIN = (
    "download the GRID corpus (video and alignments of the speakers you want) and unpack it: it "
    "holds s1/ and align/s1/"
)


def rounds_of(labelled: LabelledSet) -> tuple[Round, ...]:
    """Folds by sentence of one speaker; speakers that were not seen of several."""
    if "grid:fold1" in labelled.split_names():
        return folds("grid", FOLDS)
    return (Round("test", ("grid:test",), ("grid:train",), ("grid:val",)),)


def words_task(kind: str) -> Task:
    """The task that tells the words of one place in the sentence apart."""
    place, classes = list(WORDS).index(kind), tuple(WORDS[kind].split())
    numbers = {word: number for number, word in enumerate(classes)}

    def examples(labelled: LabelledSet, splits: Sequence[str], settings: Settings) -> list[Example]:
        frames = settings.window(labelled.fps, FRAMES)
        return word_examples(labelled, splits, place, len(WORDS), numbers, frames, JITTER)

    return Task(
        name=f"grid_{kind}",
        about=f"{len(classes)} {kind} in windows of GRID's sentences, lip crops, top-1",
        dataset="grid",
        profile="lips",
        obtain=OBTAIN,
        rounds=rounds_of,
        settings=Settings(pictures="lip", frames=FRAMES, clips=1, epochs=40, batch_size=16),
        predict=classify,
        measure=accuracy,
        examples=examples,
        classes=classes,
    )


SENTENCES = Task(
    name="grid_sentences",
    about="GRID's whole sentences, CTC, WER and CER",
    dataset="grid",
    profile="lips",
    obtain=OBTAIN,
    rounds=rounds_of,
    settings=Settings(pictures="lip", frames=0, clips=1, epochs=40, batch_size=8),
    predict=transcribe,
    measure=error_rates,
    examples=utterances,
    protocols=("finetune", "linear"),
    notes=(DECODING,),
)
_WORD_TASKS = {kind: words_task(kind) for kind in WORDS}
_OTHERS = ", ".join([f"grid_{kind}" for kind in WORDS if kind != "letters"] + [SENTENCES.name])
GRID = replace(
    _WORD_TASKS["letters"],
    name="grid",
    about=f"GRID's letters (25), the same as grid_letters; also {_OTHERS}",
    notes=(f"grid is the letters; GRID's other tasks: {_OTHERS}",),
)
GRID_TASKS = (GRID, *_WORD_TASKS.values(), SENTENCES)
"""All of them."""
