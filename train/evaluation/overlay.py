"""Pictures of attention: clips with the map over them, still and moving, what sounds in a box."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from train.heat import COLOURS, heat, top_of

COLUMNS = 4
STILL_PIXELS = 288
CELL_PIXELS, CAPTION_PIXELS = 104, 16
QUALITY, EFFORT = 10, 4
"""Of the moving picture, 0 to 100 and 0 to 6: so a dozen clips of 6 s stay below 400 kB."""
Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
UNSEEN: Pixels = np.zeros((0, 0, 0, 3), np.uint8)
"""Frames of a window that is not drawn."""


OWN = ""
"""Of the maps of a window the one with its own sound."""


@dataclass(frozen=True)
class Seen:
    """One window of an example."""

    example: int
    start: int
    """First frame, from the clip's first."""
    frames: Pixels
    """(T, H, W, 3): what the network sees, in all its contrast; `UNSEEN` where it is not drawn."""
    maps: Mapping[str, Floats]
    """Of each sound (H, W), which sums to 1; `OWN` is the window's."""
    boxes: Floats
    """(T, 4) over the picture's side, see `train.boxes.boxes_in_crop`; NaN where there is none."""


@dataclass(frozen=True)
class Shown:
    """A clip and what was measured of it."""

    name: str
    fps: float
    windows: list[Seen]
    caption: str = ""


def scale_of(shown: list[Shown]) -> float:
    """Of all these maps: the end of every picture's colours, times uniform."""
    return top_of(np.stack([_times_uniform(one) for clip in shown for one in clip.windows]))


def _times_uniform(one: Seen) -> Floats:
    return one.maps[OWN] * one.maps[OWN].size


def under_map(one: Seen, place: int, side: int, top: float) -> Any:
    """A frame of a window in grey, (side, side), with the window's map over it in colours."""
    from PIL import Image

    grey = Image.fromarray(one.frames[place]).convert("L").resize((side, side)).convert("RGBA")
    return Image.alpha_composite(grey, Image.fromarray(heat(_times_uniform(one), side, top)))


# --- still --------------------------------------------------------------------------------------


def draw(path: Path, shown: list[Shown]) -> None:
    """Write the first window of each clip as PNG, the map over its middle frame.

    As what sounds moves within a window, the boxes of all its frames are drawn, the middle frame's
    thick.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.6 * columns + 1, 3.1 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    top = scale_of(shown)
    for axes in grid:
        axes.set_axis_off()
    for axes, clip in zip(grid, shown, strict=False):
        one = clip.windows[0]
        axes.imshow(under_map(one, len(one.frames) // 2, STILL_PIXELS, top), extent=(0, 1, 1, 0))
        _draw_boxes(axes, one.boxes)
        title = f"{clip.name}, window at {one.start / clip.fps:.1f} s\n{clip.caption}"
        axes.set_title(title, fontsize=8)
        axes.set(xlim=(0, 1), ylim=(1, 0))
    colours = ScalarMappable(Normalize(0, top), COLOURS)
    figure.colorbar(colours, ax=grid.tolist(), shrink=0.6, extend="max",
                    label="attention, x uniform")  # fmt: skip
    figure.suptitle(
        "Attention of one window a clip over its middle frame, in grey. Green: where the source is "
        "in each\nframe of the window (thick: this frame). Numbers are of all windows of the clip.",
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


def as_pixels(frames: npt.NDArray[Any]) -> Pixels:
    """Normalised frames in all their contrast; normalisation is not undone."""
    lifted = frames - frames.min()
    found: Pixels = (255 * lifted / max(float(lifted.max()), 1e-9)).round().astype(np.uint8)
    return found


# --- moving -------------------------------------------------------------------------------------


def animate(path: Path, shown: list[Shown]) -> None:
    """Write all windows of each clip, one after the other, as an animated WebP.

    It plays in browsers and Markdown without a player. A clip that ends earlier stands still.
    """
    top = scale_of(shown)
    steps = max(sum(len(one.frames) for one in clip.windows) for clip in shown)
    sheets = [_sheet(shown, step, top) for step in range(steps)]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheets[0].save(path, "WEBP", save_all=True, append_images=sheets[1:], loop=0, quality=QUALITY,
                   method=EFFORT, duration=round(1000 / shown[0].fps))  # fmt: skip


def _sheet(shown: list[Shown], step: int, top: float) -> Any:
    """All clips at one moment."""
    from PIL import Image, ImageDraw

    columns, height = min(COLUMNS, len(shown)), CELL_PIXELS + CAPTION_PIXELS
    sheet = Image.new("RGB", (columns * CELL_PIXELS, -(-len(shown) // columns) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, clip in enumerate(shown):
        left, upper = number % columns * CELL_PIXELS, number // columns * height
        pen.text((left + 2, upper + 2), clip.caption.partition(",")[0], fill="black")
        sheet.paste(_cell(*_moment(clip, step), top), (left, upper + CAPTION_PIXELS))
    return sheet


def _moment(clip: Shown, step: int) -> tuple[Seen, int]:
    """The window that is shown after so many frames, and which frame of it."""
    for one in clip.windows:
        if step < len(one.frames):
            return one, step
        step -= len(one.frames)
    return clip.windows[-1], len(clip.windows[-1].frames) - 1


def _cell(one: Seen, place: int, top: float) -> Any:
    """A frame with the window's map over it and the frame's box."""
    from PIL import ImageDraw

    cell = under_map(one, place, CELL_PIXELS, top).convert("RGB")
    if np.isfinite(box := one.boxes[min(place, len(one.boxes) - 1)]).all():
        edges = (np.clip(box, 0, 1) * (CELL_PIXELS - 1)).round().tolist()
        ImageDraw.Draw(cell).rectangle(edges, outline="lime", width=2)
    return cell
