"""A sample as one picture: frames, face, lips, mel and words below each other on one time axis.

    python -m pipeline peek OUT KEY --picture clip.png      # or .pdf, .svg, for a paper

Every picture is one that is stored, in the middle of the stretch it stands for; landmarks are
drawn where the sample says they are. What the sample lacks has no row.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import UsageError
from pipeline.cards import CROPS, labelled, stored_scale
from pipeline.drawing import MEL_RANGE_NEPERS, band_marks
from pipeline.errors import plain_text
from pipeline.fonts import families, told_once
from pipeline.format import Picture, Sample
from pipeline.shard import write_atomically

COLUMNS = 10
"""Pictures a row."""
WIDTH_INCHES, MEL_INCHES, WORDS_INCHES, TITLE_INCHES, TIMES_INCHES = 10.0, 1.3, 0.3, 0.3, 0.45
LEFT_INCHES = 0.7
"""For the rows' names."""
DPI = 120
GAP = 0.03
"""Of a picture's width, between two."""
NAMES = {"frames": "frames", "face": "face", "lip": "lips", "face2": "face 2", "lip2": "lips 2"}
KINDS = ("png", "jpg", "webp", "tif", "pdf", "svg", "eps")
"""Endings of files that can be written."""
TITLE_CHARACTERS = 130
INK, LANDMARKS, NOTHING = "#333333", "#ffd400", "#eeeeee"


@dataclass(frozen=True)
class Axis:
    """The time that the picture covers, and where its pictures stand."""

    seconds: float
    chosen: tuple[int, ...]
    """Frame of each column."""

    @classmethod
    def of(cls, sample: Sample) -> "Axis":
        """The whole clip, and the frame that is on screen in the middle of each column."""
        frames = int(sample.meta["frames"])
        columns = min(COLUMNS, frames)
        chosen = tuple((2 * column + 1) * frames // (2 * columns) for column in range(columns))
        return cls(float(frames / Fraction(sample.meta["fps"])), chosen)

    @property
    def step(self) -> float:
        """Seconds of a column."""
        return self.seconds / len(self.chosen)


def save(sample: Sample, path: Path) -> str:
    """Draw a sample into a file, of the kind that the name's ending says.

    Returns:
        A line for the terminal.

    Raises:
        UsageError: the ending is no kind of picture.
    """
    from matplotlib import rc_context

    kind = path.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        raise UsageError(f"--picture {path}: expected a name that ends in one of "
                         f"{', '.join(f'.{one}' for one in KINDS)}")  # fmt: skip
    drawn = io.BytesIO()
    # Letters stay letters: publishers refuse a PDF whose font is of type 3.
    with (
        rc_context({"font.family": families(), "pdf.fonttype": 42, "ps.fonttype": 42,
                    "svg.fonttype": "none"}),
        told_once() as told,
    ):  # fmt: skip
        draw(sample).savefig(drawn, format=kind, dpi=DPI)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, drawn.getvalue())
    said = f"{path}: {plain_text(sample.meta['key'])}, {drawn.tell() / 1e3:.0f} kB"
    return "; ".join([said, *told])


def draw(sample: Sample) -> Any:
    """The picture, as a matplotlib Figure whose axes share the seconds from the clip's `t0`."""
    from matplotlib.figure import Figure

    axis = Axis.of(sample)
    words = labelled(sample.meta, "words", "w", axis.seconds)
    strips = dict(_strips(sample, axis))
    heights = [WIDTH_INCHES / len(axis.chosen) * _aspect(pictures) for pictures in strips.values()]
    heights += [MEL_INCHES] + [WORDS_INCHES] * bool(words)
    height = sum(heights) + TITLE_INCHES + TIMES_INCHES
    figure = Figure(figsize=(WIDTH_INCHES + LEFT_INCHES, height))
    rows = list(figure.subplots(
        len(heights), 1, sharex=True, squeeze=False,
        gridspec_kw={"height_ratios": heights, "hspace": 0.02, "top": 1 - TITLE_INCHES / height,
                     "bottom": TIMES_INCHES / height, "right": 0.99,
                     "left": LEFT_INCHES / (WIDTH_INCHES + LEFT_INCHES)},
    )[:, 0])  # fmt: skip
    for axes, (name, pictures) in zip(rows, strips.items(), strict=False):
        _strip(axes, axis, name, pictures)
    if "frames" in strips:
        _dots(rows[0], axis, sample)
    _mel(rows[len(strips)], axis, sample)
    if words:
        _words(rows[-1], words)
    _dressed(rows, axis, sample.meta)
    return figure


def _strips(sample: Sample, axis: Axis) -> Iterator[tuple[str, list[Picture | None]]]:
    """The rows of pictures that the sample has, and of each those that are shown."""
    for name in ("frames", *CROPS):
        chosen = [picture for number, picture in enumerate(sample.pictures.get(name, ()))
                  if number in axis.chosen]  # fmt: skip
        if any(picture is not None for picture in chosen):
            yield name, chosen


def _aspect(pictures: Sequence[Picture | None]) -> float:
    """Height of the pictures over their width."""
    height, width = next(picture.shape[:2] for picture in pictures if picture is not None)
    return float(height / width)


def _strip(axes: Any, axis: Axis, name: str, pictures: Sequence[Picture | None]) -> None:
    """Pictures beside each other, each as wide as the time it stands for."""
    axes.set_ylabel(NAMES[name])
    axes.set_yticks([])
    axes.set_facecolor(NOTHING)
    for column, picture in enumerate(pictures):
        if picture is not None:
            left = column * axis.step
            inside = (left + GAP / 2 * axis.step, left + (1 - GAP / 2) * axis.step, 1, 0)
            axes.imshow(picture, extent=inside, aspect="auto", interpolation="lanczos")
    axes.set_ylim(1, 0)


def _dots(axes: Any, axis: Axis, sample: Sample) -> None:
    """Landmarks over the frames."""
    for landmarks in sample.landmarks.values():
        for column, frame in enumerate(axis.chosen):
            if frame < len(landmarks):
                across, down = _placed(landmarks[frame], sample.meta)
                # A face may reach beyond the picture, and must not onto the next one.
                inside = (across >= 0) & (across <= 1) & (down >= 0) & (down <= 1)
                across, down = across[inside], down[inside]
                times = (column + GAP / 2 + (1 - GAP) * across) * axis.step
                axes.plot(times, down, "o", color=LANDMARKS, markersize=0.9, markeredgewidth=0)


def _placed(landmarks: npt.NDArray[np.float32], meta: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Landmarks as parts of the stored frame's width and height; (2, 68)."""
    parts = landmarks.astype(np.float64) * stored_scale(meta) / meta["frame_size"]
    return np.asarray(parts.T)


def _mel(axes: Any, axis: Axis, sample: Sample) -> None:
    """The mel spectrogram, as the pages show it: what is within 61 dB of the loudest slice."""
    assert sample.mel is not None
    mel = sample.mel.astype(np.float32)
    top = float(mel.max())
    axes.imshow(mel, origin="lower", extent=(0, axis.seconds, 0, 1), aspect="auto", cmap="magma",
                vmin=max(top - MEL_RANGE_NEPERS, float(mel.min())), vmax=top)  # fmt: skip
    marks = band_marks(sample.meta["mel_rate_hz"])
    axes.set_yticks([mark.at / 100 for mark in marks], [mark.text for mark in marks])


def _words(axes: Any, words: Sequence[Any]) -> None:
    """Each word between its start and its end."""
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    for word in words:
        axes.axvspan(word.start_seconds, word.end_seconds, color=NOTHING, linewidth=0.5, ec="white")
        middle = (word.start_seconds + word.end_seconds) / 2
        axes.text(middle, 0.5, plain_text(word.text), ha="center", va="center", fontsize=7,
                  color=INK, clip_on=True, parse_math=False)  # fmt: skip


def _dressed(rows: Sequence[Any], axis: Axis, meta: dict[str, Any]) -> None:
    """Title, seconds, and nothing that is not needed."""
    for axes in rows:
        axes.set_xlim(0, axis.seconds)
        axes.tick_params(colors=INK, labelsize=7, length=2, bottom=axes is rows[-1])
        axes.yaxis.label.set_size(8)
        for spine in axes.spines.values():
            spine.set_visible(False)
    rows[0].set_title(_title(meta), fontsize=9, color=INK, loc="left", parse_math=False)
    rows[-1].set_xlabel("seconds", fontsize=8, color=INK)


def _title(meta: dict[str, Any]) -> str:
    """Key, labels, and what is said if there is no row of words; as much as has room."""
    said = "" if meta["words"] else meta.get("transcript") or ""
    labels = map(str, meta["label_names"] or ())
    title = plain_text(" · ".join(filter(None, (meta["key"], *labels, said))))
    return title if len(title) <= TITLE_CHARACTERS else title[: TITLE_CHARACTERS - 1] + "…"
