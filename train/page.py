"""What the HTML pages share: their style, figures, and pictures as text inside the page.

A page is one file that opens offline. matplotlib is imported only when something is drawn.
"""

import base64
import io
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np

from train.evaluation.result import MISTAKES, MOVING

HTML = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
STYLE = """
body { font: 15px/1.45 sans-serif; color: #1b1b1b; max-width: 1200px; margin: 1.5em auto;
  padding: 0 1em }
h1 { margin-bottom: .2em } h2 { margin: 1.6em 0 .4em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse } th { text-align: left; font-weight: 600 }
td, th { padding: 3px 1.2em 3px 0; vertical-align: top }
img { max-width: 100% }
"""
STYLE_OF_RESULTS = """
td, th { font-variant-numeric: tabular-nums; font-size: 14px }
tr+tr { border-top: 1px solid #eee } .soft { color: #666 } .scroll { overflow-x: auto }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(420px, 1fr)); gap: 14px }
details > summary { cursor: pointer; font-weight: 600; margin: .6em 0 }
"""
"""Beside `STYLE`, of pages with tables of results."""
GRID = """{% macro grid(heads, rows) %}
<div class="scroll"><table><tr>{% for head in heads %}<th>{{ head }}{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}{% endfor %}</tr>
{% endfor %}</table></div>
{% endmacro %}
"""
"""Before such a page's template: `grid(heads, rows)`, a table."""
DPI = 80
JPEG_QUALITY = 80


def figure(
    rows: int, width: float, height: float, layout: Literal["constrained"] | None = "constrained",
    columns: int = 1,
) -> tuple[Any, Any]:  # fmt: skip
    """A matplotlib figure of so many axes, row by row.

    Args:
        rows: how many above each other.
        width: of the figure, inches.
        height: of the figure, inches.
        layout: None leaves margins to the caller and is drawn in half the time.
        columns: how many beside each other.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    drawn = Figure(figsize=(width, height), layout=layout)
    return drawn, drawn.subplots(rows, columns, squeeze=False).ravel()


def png(drawn: Any, dpi: int = DPI) -> str:
    """A figure as base64, for `data:image/png;base64,`."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=dpi)
    return base64.b64encode(buffer.getvalue()).decode()


def as_it_is(path: Path) -> str:
    """A file as base64, for `data:image/webp;base64,`."""
    return base64.b64encode(path.read_bytes()).decode()


def jpeg_of(path: Path) -> str:
    """A PNG file with photographs in it as a small base64 JPEG, for `data:image/jpeg;base64,`."""
    return base64.b64encode(as_jpeg(path)).decode()


def as_jpeg(path: Path) -> bytes:
    """A PNG file with photographs in it as a small JPEG."""
    import simplejpeg
    from matplotlib.image import imread

    pixels = (imread(path)[..., :3] * 255).round().astype(np.uint8)
    blob: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), JPEG_QUALITY, "RGB", "420")
    return blob


def pictures_of(folder: Path) -> list[dict[str, str]]:
    """What an evaluation drew, and what of it moves; mistakes of the first round alone.

    Returns:
        Each as `name`, `kind` (jpeg, webp) and base64 `data`.
    """
    still = [{"name": path.stem, "kind": "jpeg", "data": jpeg_of(path)}
             for path in sorted(folder.glob("*.png"))]  # fmt: skip
    moving = [{"name": f"{path.stem}, moving", "kind": "webp", "data": as_it_is(path)}
              for path in sorted(folder.glob(f"*{MOVING}"))]  # fmt: skip
    wrong = [{"name": path.stem, "kind": "jpeg", "data": as_it_is(path)}
             for path in sorted(folder.glob(MISTAKES))[:1]]  # fmt: skip
    return still + moving + wrong
