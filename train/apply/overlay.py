"""Attention maps as pictures that lie over a video, with a colour bar beside it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from train.augment import PLAIN_SIDE
from train.heat import COLOURS, heat

LEGEND_PIXELS = 104
Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Canvas:
    """Where things lie, in pixels."""

    width: int
    """Of the video, even."""
    height: int

    @classmethod
    def like(cls, frame_size: tuple[int, int], short_side: int) -> "Canvas":
        """As the stored frames (width, height) are, with another short side."""
        scale = short_side / min(frame_size)
        width, height = (2 * max(round(side * scale / 2), 1) for side in frame_size)
        return cls(width, height)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of video and colour bar."""
        return self.width + LEGEND_PIXELS, self.height

    @property
    def crop(self) -> tuple[int, int, int]:
        """Left, top and side of the square that the network sees."""
        side = round(PLAIN_SIDE * min(self.width, self.height))
        return (self.width - side) // 2, (self.height - side) // 2, side


def pictures(maps: Floats, canvas: Canvas, top: float) -> Iterator[Pixels]:
    """RGBA (height, width, 4) for each map.

    Args:
        maps: (T, H, W), times uniform.
        canvas: where the map lies.
        top: of the colour bar.
    """
    left, upper, side = canvas.crop
    empty = np.zeros((canvas.height, canvas.size[0], 4), np.uint8)
    empty[:, canvas.width :] = legend(canvas.height, top)
    for one in maps:
        picture = empty.copy()
        seen = picture[upper : upper + side, left : left + side]
        seen[...] = heat(one, side, top)
        _outline(seen)
        yield picture


def _outline(seen: Pixels) -> None:
    """A thin line around what the network sees."""
    for edge in (seen[:2], seen[-2:], seen[:, :2], seen[:, -2:]):
        edge[...] = (255, 255, 255, 120)


def legend(height: int, top: float) -> Pixels:
    """The colour bar, (height, LEGEND_PIXELS, 4)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=(LEGEND_PIXELS / 100, height / 100), dpi=100, facecolor="black")
    axes = figure.add_axes((0.14, 0.06, 0.16, 0.88))
    bar = figure.colorbar(ScalarMappable(Normalize(0, top), COLOURS), cax=axes)
    bar.set_label("attention, x uniform", color="white", fontsize=8)
    bar.ax.tick_params(colors="white", labelsize=7)
    drawn: Any = FigureCanvasAgg(figure)
    drawn.draw()
    return np.asarray(drawn.buffer_rgba())[:height, :LEGEND_PIXELS]
