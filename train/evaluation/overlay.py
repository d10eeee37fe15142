"""A picture of attention: the map of one window of each clip over its middle frame."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """One window of a clip."""

    name: str
    start_seconds: float
    """Where the window begins, from the clip's first frame."""
    frame: Floats
    """Its middle frame (H, W, 3), normalised or not."""
    att: Floats
    """(H, W), sums to 1."""
    boxes: Floats
    """(T, 4) over the picture's side; NaN where there is none."""
    caption: str = ""
    """What was measured of the clip."""


def draw(path: Path, shown: list[Shown]) -> None:
    """Write the overlay as PNG.

    As what sounds moves within a window, the boxes of all its frames are drawn, the middle frame's
    thick.
    """
    from matplotlib.figure import Figure

    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.6 * columns + 1, 3.1 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    top = max(float(one.att.max() * one.att.size) for one in shown)
    for axes in grid:
        axes.set_axis_off()
    for axes, one in zip(grid, shown, strict=False):
        axes.imshow(stretched(one.frame), extent=(0, 1, 1, 0))
        image = axes.imshow(one.att * one.att.size, extent=(0, 1, 1, 0), cmap="inferno",
                            alpha=0.55, vmin=0, vmax=top)  # fmt: skip
        _draw_boxes(axes, one.boxes)
        title = f"{one.name}, window at {one.start_seconds:.1f} s\n{one.caption}"
        axes.set_title(title, fontsize=8)
        axes.set(xlim=(0, 1), ylim=(1, 0))
    figure.colorbar(image, ax=grid.tolist(), shrink=0.6, label="attention, x uniform")
    figure.suptitle(
        "Attention of one window a clip over its middle frame. Green: where the source is in each "
        "frame of the\nwindow (thick: in this frame). Numbers are of all windows of the clip.",
        fontsize=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw_boxes(axes: Any, boxes: Floats) -> None:
    from matplotlib.patches import Rectangle

    for number, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        if np.isfinite(x0):
            width, alpha = (1.8, 1.0) if number == len(boxes) // 2 else (0.5, 0.6)
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="lime",
                                     linewidth=width, alpha=alpha))  # fmt: skip


def stretched(frame: Floats) -> Floats:
    """0 .. 1: the frame's whole contrast; normalisation is not undone."""
    lifted = frame - frame.min()
    found: Floats = lifted / max(float(lifted.max()), 1e-9)
    return found
