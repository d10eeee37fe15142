"""What a performer of the planted corpus does, and when: bouts of words, words of mouth shapes.

A word is three shapes of the mouth (`SHAPES`), 0.15 to 0.19 s each. The 20 words are four orders of
each of five sets of shapes, so that a mean over a word's pictures, which does not know their order,
tells sets apart and no more than a quarter of the words. Words come in bouts of two to four, 1.0 to
2.9 s, with pauses of 0.5 to 1.6 s: regular impacts would look the same a second later.

Mouth and sound are the same curves (`Script.tracks`): formants are a function of the shape.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Track = NDArray[np.float64]

CONTROL_HZ = 200
"""Rate of the curves."""


@dataclass(frozen=True)
class Shape:
    """One position of the mouth and how loud it is."""

    height: float
    """Opening up and down, 0 (closed) to 1."""
    width: float
    """From corner to corner, 0.3 (rounded) to 1.2 (spread)."""
    loudness: float
    """0..1."""


SHAPES = {
    "m": Shape(0.04, 0.80, 0.40),
    "a": Shape(1.00, 0.85, 1.00),
    "e": Shape(0.45, 1.10, 0.85),
    "i": Shape(0.16, 1.20, 0.75),
    "o": Shape(0.70, 0.55, 0.90),
    "u": Shape(0.32, 0.30, 0.70),
}
REST = Shape(0.04, 0.75, 0.0)
"""Between words."""
SETS = ("aiu", "mao", "oem", "uae", "iom")
ORDERS = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1))
WORDS = tuple("".join(letters[place] for place in order) for letters in SETS for order in ORDERS)
"""The vocabulary: 20 words."""

SHAPE_SECONDS = (0.15, 0.19)
"""Length of a shape, drawn for each performer; each one said is up to a tenth off."""
GAP_SECONDS = (0.10, 0.20)
"""Between the words of a bout."""
PAUSE_SECONDS = (0.5, 1.6)
"""Between bouts."""
WORDS_A_BOUT = (0.45, 0.35, 0.20)
"""Probabilities of two to four."""
FIRST_SECONDS = (0.2, 1.2)
"""When the first bout may begin."""
LEAST_AFTER_SECONDS = 0.25
"""Silence at the end of a clip."""
MOVE_SECONDS = 0.05
"""From one shape to the next."""


@dataclass(frozen=True)
class Word:
    """One word and when it is said; seconds from the first picture."""

    text: str
    onsets: tuple[float, ...]
    """When each of its shapes begins."""
    end: float


@dataclass(frozen=True)
class Script:
    """All that a performer says in a clip."""

    bouts: tuple[tuple[Word, ...], ...]
    seconds: float

    @property
    def words(self) -> tuple[Word, ...]:
        """In time order."""
        return tuple(word for bout in self.bouts for word in bout)

    @property
    def onsets(self) -> list[float]:
        """When each shape of each word begins."""
        return [onset for word in self.words for onset in word.onsets]

    def tracks(self) -> dict[str, Track]:
        """Curves of `height`, `width` and `loudness`, `CONTROL_HZ` values a second from 0 s."""
        grid = np.arange(int(np.ceil(self.seconds * CONTROL_HZ)) + 1) / CONTROL_HZ
        return {
            "height": _curve(grid, self._knots("height")),
            "width": _curve(grid, self._knots("width")),
            "loudness": _curve(grid, self._attacks()),
        }

    def _knots(self, name: str) -> list[tuple[float, float]]:
        """Shapes are reached around their onset and held; between words the mouth is at rest."""
        rest, half = float(getattr(REST, name)), MOVE_SECONDS / 2
        knots = [(0.0, rest)]
        for word in self.words:
            before = rest
            for letter, onset in zip(word.text, word.onsets, strict=True):
                value = float(getattr(SHAPES[letter], name))
                knots += [(onset - half, before), (onset + half, value)]
                before = value
            knots += [(word.end - half, before), (word.end + half, rest)]
        return [*knots, (self.seconds, rest)]

    def _attacks(self) -> list[tuple[float, float]]:
        """Each shape is an attack of 20 ms that dies to a half; nothing sounds between words."""
        knots = [(0.0, 0.0)]
        for word in self.words:
            ends = [*word.onsets[1:], word.end]
            for letter, onset, end in zip(word.text, word.onsets, ends, strict=True):
                loud = SHAPES[letter].loudness
                knots += [(onset - 0.005, 0.0), (onset + 0.015, loud)]
                knots += [(end - 0.04, 0.5 * loud), (end - 0.01, 0.0)]
        return [*knots, (self.seconds, 0.0)]


def write(random: np.random.Generator, seconds: float, tempo: float) -> Script:
    """Draw bouts of words that fill a clip.

    Args:
        random: draws everything.
        seconds: length of the clip.
        tempo: mean length of a shape in seconds.
    """
    bouts: list[tuple[Word, ...]] = []
    now, last = float(random.uniform(*FIRST_SECONDS)), seconds - LEAST_AFTER_SECONDS
    while True:
        bout = []
        for _ in range(int(random.choice(3, p=WORDS_A_BOUT)) + 2):
            word = _word(random, now, tempo)
            if word.end > last:
                break
            bout.append(word)
            now = word.end + float(random.uniform(*GAP_SECONDS))
        if not bout:
            return Script(tuple(bouts), seconds)
        bouts.append(tuple(bout))
        now = bout[-1].end + float(random.uniform(*PAUSE_SECONDS))


def _word(random: np.random.Generator, start: float, tempo: float) -> Word:
    text = str(random.choice(WORDS))
    lengths = tempo * random.uniform(0.9, 1.1, len(text))
    edges = [round(start + float(length), 3) for length in np.cumsum([0, *lengths])]
    return Word(text, tuple(edges[:-1]), edges[-1])


def _curve(grid: Track, knots: list[tuple[float, float]]) -> Track:
    times, values = np.array(knots).T
    return np.asarray(np.interp(grid, times, values))


def at(track: Track, seconds: float) -> float:
    """A curve's value at a time."""
    return float(np.interp(seconds * CONTROL_HZ, np.arange(len(track)), track))
