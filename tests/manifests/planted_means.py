"""What simple means get of the planted corpus: the table in `manifests.planted`.

    python -m tests.manifests.planted_means data/shards/planted-glcm

Logistic regression on standardised numbers of the clips of train and val, scored on test, with the
best of five strengths on test itself: an upper bound of what these numbers give away.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import webdataset as wds
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from train.tasks.planted import NUMBERS, WORD_SECONDS

Floats = NDArray[np.float64]
FPS, SLICES_A_SECOND = 10, 30
WORD_FRAMES, WORD_SLICES = round(WORD_SECONDS * FPS), round(WORD_SECONDS * SLICES_A_SECOND)
WHOLE, CUT, COARSE = 32, 24, 16
"""Sides in pixels: of whole frames and cuts in the words' rows, of a frame in the classes' row."""
COMPONENTS = 100
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Shown:
    """A clip as stored."""

    meta: dict[str, Any]
    frames: NDArray[np.uint8]
    """(T, 128, 128, 3)."""
    mel: Floats
    """(80, 3 T)."""

    @property
    def learnt(self) -> bool:
        """Whether it is not of the test split."""
        return "planted:test" not in self.meta["splits"]


def clips(folder: Path) -> Iterator[Shown]:
    """All clips of a set of shards."""
    tars = [str(path) for path in sorted(folder.rglob("*.tar"))]
    for sample in wds.WebDataset(tars, shardshuffle=False, empty_check=False):
        meta = json.loads(sample["json"])
        edges = np.cumsum([0, *meta["jpeg_sizes"]["frames"]])
        packed = np.frombuffer(sample["frames.mjpeg"], np.uint8)
        frames = [decoded(packed[a:b]) for a, b in pairwise(edges)]
        mel = np.load(BytesIO(sample["mel.npy"])).astype(np.float64)
        yield Shown(meta, np.stack(frames), mel)


def decoded(jpeg: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (H, W, 3), blue first."""
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert picture is not None
    return picture.astype(np.uint8)


def resized(frames: NDArray[np.uint8], side: int) -> Floats:
    """(T, H, W, 3) -> (T, side * side * 3)."""
    scaled = [cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in frames]
    return np.stack(scaled).reshape(len(frames), -1).astype(np.float64)


def colours(clip: Shown) -> Floats:
    """A histogram of 6 x 6 x 6 colours."""
    bins = (clip.frames.reshape(-1, 3).astype(np.int64) * 6 // 256) @ (36, 6, 1)
    return np.sqrt(np.bincount(bins, minlength=216) / len(bins))


CLASSES: dict[str, Callable[[Shown], Floats]] = {
    "mean colour of the clip": lambda clip: clip.frames.mean(axis=(0, 1, 2)),
    "histogram of its colours": colours,
    f"a frame of {COARSE} x {COARSE} pixels": lambda clip: resized(clip.frames[:1], COARSE)[0],
    "mean mel": lambda clip: clip.mel.mean(axis=1),
    "mean and deviation of mel": lambda clip: np.r_[clip.mel.mean(axis=1), clip.mel.std(axis=1)],
}


def words(clip: Shown) -> Iterator[tuple[int, dict[str, Floats]]]:
    """Number of each word of a clip, and what is seen and heard of it."""
    cuts = resized_cuts(clip)
    whole = resized(clip.frames, WHOLE)
    for word in clip.meta["words"]:
        middle = (word["start_s"] + word["end_s"]) / 2 - clip.meta["t0"]
        first = min(max(round((middle - WORD_SECONDS / 2) * FPS), 0), len(whole) - WORD_FRAMES)
        seen = slice(first, first + WORD_FRAMES)
        heard = slice(3 * first, 3 * first + WORD_SLICES)
        yield (
            NUMBERS[word["w"]],
            {
                f"mean of its {WORD_FRAMES} whole frames": whole[seen].mean(axis=0),
                f"its {WORD_FRAMES} whole frames": whole[seen].ravel(),
                f"mean of its {WORD_FRAMES} frames cut to the performer": cuts[seen].mean(axis=0),
                f"its {WORD_FRAMES} frames cut to the performer": cuts[seen].ravel(),
                f"mel of its {WORD_SECONDS} s": clip.mel[:, heard].ravel(),
            },
        )


def resized_cuts(clip: Shown) -> Floats:
    """Frames cut to the performer."""
    boxes = np.array(clip.meta["truth"]["boxes"])
    cuts = []
    for number, frame in enumerate(clip.frames):
        nearest = int(np.abs(boxes[:, 0] - clip.meta["t0"] - number / FPS).argmin())
        x0, y0, x1, y1 = boxes[nearest, 1:].round().astype(int)
        cuts.append(cv2.resize(frame[y0:y1, x0:x1], (CUT, CUT), interpolation=cv2.INTER_AREA))
    return np.stack(cuts).reshape(len(cuts), -1).astype(np.float64)


def right(numbers: Floats, truth: NDArray[np.int64], learnt: NDArray[np.bool_]) -> float:
    """Share of the test examples that a linear model gets right."""
    scores = []
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        model.fit(numbers[learnt], truth[learnt])
        scores.append(float(model.score(numbers[~learnt], truth[~learnt])))
    return max(scores)


def main(folder: Path) -> None:
    """Print the rows of the table."""
    of_clips: list[tuple[bool, int, dict[str, Floats]]] = []
    of_words: list[tuple[bool, int, dict[str, Floats]]] = []
    for clip in clips(folder):
        seen = {name: measure(clip) for name, measure in CLASSES.items()}
        of_clips.append((clip.learnt, clip.meta["labels"][0], seen))
        of_words += [(clip.learnt, number, seen) for number, seen in words(clip)]
    for title, examples in (("class", of_clips), ("word", of_words)):
        learnt, truth = (np.array(column) for column in list(zip(*examples, strict=True))[:2])
        for name in examples[0][2]:
            numbers = np.stack([seen[name] for _, _, seen in examples])
            if title == "word":
                numbers = PCA(COMPONENTS, random_state=0).fit(numbers[learnt]).transform(numbers)
            print(f"| {title} | {name} | {right(numbers, truth, learnt):.2f} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
