"""Words of sentences as examples: a fixed window about the middle of each, as LRW cuts its clips.

The window may be wider than what a network sees: training then takes any place of it, scoring the
middle, so that the word's own time is not learned by heart.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from train.errors import UsageError
from train.evaluation.labelled import Example, LabelledSet

log = logging.getLogger(__name__)

TOLD = 10


def word_examples(
    labelled: LabelledSet,
    splits: Sequence[str],
    place: int,
    words_a_clip: int,
    classes: Mapping[str, int],
    frames: int,
    jitter: int,
) -> list[Example]:
    """One word of each clip of some splits that is there.

    Args:
        labelled: clips whose manifest rows have `words`, with seconds from the clip's start.
        splits: which clips.
        place: of the word in its sentence, from 0.
        words_a_clip: how many each sentence has.
        classes: number of each word.
        frames: of the window.
        jitter: frames that the example has more, before and after; fewer at the clip's ends.

    Returns:
        Examples `KEY#place`. Where all clips are of one group (one speaker), each clip is a group
        of its own, because there are no other speakers to hold out.

    Raises:
        UsageError: clips without the times of their words, or with words that are no class.
    """
    unusable: list[str] = []
    outside: list[str] = []
    found = []
    one_group = alone(labelled)
    for planned in labelled.planned(splits):
        row = labelled.row_of.get(planned["key"])
        if row is None:
            continue
        words = planned["words"] or []
        if len(words) != words_a_clip or words[place]["w"] not in classes:
            unusable.append(_told(planned["key"], words))
            continue
        word, length = words[place], int(labelled.shard_set.frames[row])
        start, count = window(word, labelled.fps, length, frames, jitter)
        if not 0 <= _middle(word) * labelled.fps < length:
            outside.append(planned["key"])
        group = planned["key"] if one_group else planned["group_id"] or planned["key"]
        name = f"{planned['key']}#{place}"
        found.append(Example(name, row, classes[word["w"]], group, start, count))
    _require_usable(labelled, splits, unusable, words_a_clip)
    if outside:
        log.warning(
            "%d clips of %s end before the middle of their word %d, such as %s; the last frames "
            "that they have stand for it", len(outside), ", ".join(splits), place + 1, outside[0],
        )  # fmt: skip
    return found


def all_words(
    labelled: LabelledSet,
    splits: Sequence[str],
    classes: Mapping[str, int],
    frames: int,
    jitter: int,
) -> list[Example]:
    """Every word of the clips of some splits that are there; arguments as of `word_examples`.

    Raises:
        UsageError: no clip has the times of its words, or a word is no class.
    """
    found = []
    for planned in labelled.planned(splits):
        row = labelled.row_of.get(planned["key"])
        if row is None:
            continue
        length = int(labelled.shard_set.frames[row])
        group = planned["group_id"] or planned["key"]
        for place, word in enumerate(planned["words"] or []):
            if word["w"] not in classes:
                raise UsageError(
                    f"{planned['key']} of {labelled.shard_set.name} says {word['w']!r}; expected "
                    f"one of {', '.join(classes)}"
                )
            start, count = window(word, labelled.fps, length, frames, jitter)
            name = f"{planned['key']}#{place}"
            found.append(Example(name, row, classes[word["w"]], group, start, count))
    if not found and labelled.planned(splits):
        raise UsageError(f"no clip of {', '.join(splits)} in {labelled.shard_set.name} says when "
                         "its words are; expected shards whose manifest has `words`")  # fmt: skip
    return found


def window(
    word: Mapping[str, float], fps: float, length: int, frames: int, jitter: int
) -> tuple[int, int]:
    """First frame and number of frames about the middle of a word, inside of its clip.

    Args:
        word: with start_s and end_s, seconds from the clip's first frame.
        fps: frames a second.
        length: frames of the clip; a shorter one than the window is taken whole.
        frames: window.
        jitter: frames more on both sides, as far as there are as many on both.
    """
    if frames == 0 or length <= frames:
        return 0, length
    first = round(_middle(word) * fps - frames / 2)
    first = min(max(first, 0), length - frames)
    room = min(jitter, first, length - frames - first)
    return first - room, frames + 2 * room


def alone(labelled: LabelledSet) -> bool:
    """Whether all clips are of one group, such as one speaker."""
    return len(set(labelled.manifest["group_id"].to_pylist())) < 2


def _middle(word: Mapping[str, float]) -> float:
    return (word["start_s"] + word["end_s"]) / 2


def _told(key: str, words: Sequence[Mapping[str, Any]]) -> str:
    spoken = " ".join(word["w"] for word in words)
    return f"  {key}: {spoken or 'no word has a time'}"


def _require_usable(
    labelled: LabelledSet, splits: Sequence[str], unusable: Sequence[str], words_a_clip: int
) -> None:
    if unusable:
        listed = [*unusable[:TOLD], *(["  ..."] if len(unusable) > TOLD else [])]
        raise UsageError(
            f"{len(unusable)} clips of {', '.join(splits)} in {labelled.shard_set.name} have no "
            f"times for the {words_a_clip} words of their sentence, so no window can be cut:\n"
            + "\n".join(listed)
            + "\nAdd or repair their alignments (`--annotations`) and run `make shards` again"
        )
