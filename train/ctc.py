"""CTC: characters as labels, and from log-probabilities a frame back to text.

    from train import ctc
    labels = ctc.encode("bin blue at f two now")        # for torch.nn.CTCLoss(blank=ctc.BLANK)
    texts = ctc.transcribe(log_probabilities, frames)   # greedy; beam_width=10 for the beam

Graves et al. 2006, "Connectionist temporal classification": a path names a label or the blank for
each frame; the text of a path is what is left when repeats are merged and then blanks removed.
The search is our own, because what there is costs more than it saves: torchaudio's needs two
compiled packages more, pyctcdecode wants numpy below 2, and fast-ctc-decode calls itself a release
with minimal support (it finds the same texts).
"""

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from train.arrays import Flags, Integers, Values
from train.errors import UsageError

BLANK = 0
CHARSET = string.ascii_uppercase + string.digits + " '"
"""Label 1 is A; 38 characters, so that a model has 39 outputs. [D] as methods.md of the design."""
CLASSES = len(CHARSET) + 1
BEAM_WIDTH = 10

_LABELS = {character: number for number, character in enumerate(CHARSET, BLANK + 1)}


def encode(text: str) -> list[int]:
    """Labels of a text, in capitals and with single spaces.

    Raises:
        UsageError: a character that is not in CHARSET.
    """
    plain = " ".join(text.upper().split())
    if unknown := sorted(set(plain) - set(CHARSET)):
        raise UsageError(
            f"the transcript {text!r} has {', '.join(map(repr, unknown))}; known are A-Z, 0-9, "
            "space and '. Remove or replace such characters in the manifest"
        )
    return [_LABELS[character] for character in plain]


def decode(labels: Sequence[int]) -> str:
    """Text of labels, repeats and all; the opposite of `encode`.

    Raises:
        UsageError: a number that is no label, such as the blank.
    """
    if wrong := sorted({int(label) for label in labels} - set(_LABELS.values())):
        raise UsageError(
            f"{wrong[0]} is no label; labels are 1 to {len(CHARSET)}, {BLANK} is blank"
        )
    return "".join(CHARSET[int(label) - BLANK - 1] for label in labels)


def required_frames(labels: Sequence[int]) -> int:
    """Frames the shortest path needs: one a label, and a blank between equal neighbours.

    With fewer the loss is infinite; such clips are left out of training and counted.
    """
    repeats = sum(a == b for a, b in pairwise(labels))
    return len(labels) + repeats


def best_path(log_probabilities: npt.ArrayLike) -> list[int]:
    """Greedy decoding: the labels of the likeliest path, which need not be the likeliest labels.

    Args:
        log_probabilities: (T, C), or any scores that order the classes of a frame alike.

    Raises:
        UsageError: another shape, or NaN.
    """
    path = _checked(log_probabilities).argmax(1)
    first = np.ones(len(path), bool)
    first[1:] = path[1:] != path[:-1]
    found: list[int] = path[first & (path != BLANK)].tolist()
    return found


@dataclass(frozen=True)
class Hypothesis:
    """What a beam search ends with."""

    labels: tuple[int, ...]
    log_probability: float
    """ln of the summed probability of its paths, as far as the beam has seen them."""


def beam_search(log_probabilities: npt.ArrayLike, width: int = BEAM_WIDTH) -> list[Hypothesis]:
    """Prefix beam search without a language model, the likeliest first.

    A prefix has two probabilities: of its paths that end in blank, and in its last label. Only
    after a blank may the last label come again as a new one. A beam that never drops a prefix gives
    the exact probabilities.

    Args:
        log_probabilities: (T, C) natural logarithms, each frame's summing to 1; C may be any.
        width: prefixes kept a frame.

    Returns:
        Up to `width` hypotheses.

    Raises:
        UsageError: another shape, NaN, rows that are no log-probabilities, or a width below 1.
    """
    frames = _checked(log_probabilities)
    if width < 1:
        raise UsageError(f"a beam of width {width} holds nothing; take 1 or more (paper runs: 10)")
    if len(frames) and np.abs(np.logaddexp.reduce(frames, axis=1)).max() > 1e-2:
        raise UsageError("the beam needs log-probabilities; apply log_softmax to the logits first")
    beam = _Beam(frames.shape[1], width)
    for frame in frames:
        beam.advance(frame)
    return beam.hypotheses()


def transcribe(
    log_probabilities: npt.ArrayLike, frames: npt.ArrayLike, beam_width: int | None = None
) -> list[str]:
    """Text of each utterance of a batch.

    Args:
        log_probabilities: (B, T, CLASSES).
        frames: (B,) how many of T are an utterance's own.
        beam_width: None decodes greedily.

    Raises:
        UsageError: other shapes, NaN, or as `beam_search`.
    """
    batch, lengths = np.asarray(log_probabilities), np.asarray(frames)
    if batch.ndim != 3 or batch.shape[2] != CLASSES or lengths.shape != batch.shape[:1]:
        raise UsageError(
            f"transcribe: log-probabilities of shape {batch.shape} with {lengths.shape} lengths; "
            f"needed are (B, T, {CLASSES}) with (B,)"
        )
    if len(lengths) and not 0 <= lengths.min() <= lengths.max() <= batch.shape[1]:
        raise UsageError(
            f"transcribe: lengths {lengths.min()}..{lengths.max()} of T={batch.shape[1]}"
        )
    return [decode(found) for found in _labels(batch, lengths, beam_width)]


# --- pieces -----------------------------------------------------------------------------------


def _labels(
    batch: npt.NDArray[np.floating], lengths: Integers, width: int | None
) -> Iterator[Sequence[int]]:
    for utterance, frames in zip(batch, lengths.tolist(), strict=True):
        own = utterance[:frames]
        yield best_path(own) if width is None else beam_search(own, width)[0].labels


def _checked(log_probabilities: npt.ArrayLike) -> Values:
    """(T, C) of numbers; -inf is the logarithm of 0 and allowed."""
    found = np.asarray(log_probabilities, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] < 2:
        raise UsageError(f"CTC needs (frames, classes) of at least 2 classes, not {found.shape}")
    if np.isnan(found).any() or np.isposinf(found).any():
        raise UsageError("CTC: NaN or infinity among the log-probabilities; the model has diverged")
    return found


class _Beam:
    """Prefixes as nodes of a tree: one number a sequence of labels, however it was reached."""

    def __init__(self, classes: int, width: int) -> None:
        self.width = width
        self.classes = classes
        self.children: dict[tuple[int, int], int] = {}
        self.above = [(-1, BLANK)]
        """Parent and last label of each node; node 0 is the empty prefix."""
        self.nodes: Integers = np.zeros(1, np.int64)
        self.blank: Values = np.zeros(1)
        """(W,) ln of the paths of each prefix that end in blank."""
        self.label: Values = np.full(1, -np.inf)
        """(W,) ln of those that end in its last label."""

    def advance(self, frame: Values) -> None:
        """One frame further: (C,) log-probabilities."""
        parents, lasts = np.array([self.above[node] for node in self.nodes.tolist()]).T
        total = np.logaddexp(self.blank, self.label)
        blank = total + frame[BLANK]
        label = np.where(lasts == BLANK, -np.inf, self.label + frame[lasts])
        longer = total[:, None] + frame
        own = np.arange(len(lasts))
        longer[own, lasts] = self.blank + frame[lasts]
        longer[:, BLANK] = -np.inf
        self._merge(longer, label, parents, lasts)
        self._keep(blank, label, longer)

    def _merge(self, longer: Values, label: Values, parents: Integers, lasts: Integers) -> None:
        """A prefix that grows into one of the beam gives its probability to that one."""
        same: Flags = parents[:, None] == self.nodes
        grown, grew = np.nonzero(same)  # prefix `grown` is `grew` with one label more
        label[grown] = np.logaddexp(label[grown], longer[grew, lasts[grown]])
        longer[grew, lasts[grown]] = -np.inf

    def _keep(self, blank: Values, label: Values, longer: Values) -> None:
        """The `width` likeliest of the old prefixes and those with one label more."""
        scores = np.concatenate([np.logaddexp(blank, label), longer.ravel()])
        kept = np.argsort(-scores, kind="stable")[: self.width]
        kept = kept[scores[kept] > -np.inf]
        old, new = kept[kept < len(blank)], kept[kept >= len(blank)] - len(blank)
        grew, labels = np.divmod(new, self.classes)
        nodes = [
            self._child(*key)
            for key in zip(self.nodes[grew].tolist(), labels.tolist(), strict=True)
        ]
        self.nodes = np.concatenate([self.nodes[old], np.array(nodes, np.int64)])
        self.blank = np.concatenate([blank[old], np.full(len(new), -np.inf)])
        self.label = np.concatenate([label[old], longer[grew, labels]])

    def _child(self, node: int, label: int) -> int:
        key = (node, label)
        if key not in self.children:
            self.children[key] = len(self.above)
            self.above.append(key)
        return self.children[key]

    def hypotheses(self) -> list[Hypothesis]:
        """What is in the beam, the likeliest first."""
        total = np.logaddexp(self.blank, self.label)
        return [
            Hypothesis(self._prefix(int(self.nodes[i])), float(total[i]))
            for i in np.argsort(-total, kind="stable")
        ]

    def _prefix(self, node: int) -> tuple[int, ...]:
        labels: list[int] = []
        while node:
            node, label = self.above[node]
            labels.append(label)
        return tuple(reversed(labels))
