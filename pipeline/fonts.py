"""Scripts that matplotlib's own font lacks, such as Chinese: other fonts, where there are some."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

OWN = "DejaVu Sans"
"""Comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew."""
OTHERS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
)


def families() -> list[str]:
    """The fonts to take characters from, in this order, of those that are installed."""
    from matplotlib.font_manager import get_font_names

    there = set(get_font_names())
    return [OWN, *(name for name in OTHERS if name in there)]


@contextmanager
def told_once() -> Iterator[list[str]]:
    """Keep matplotlib from warning about each character that no font has.

    Yields:
        A list that has a sentence in the end, if there were some.
    """
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph .* missing from font")
        yield told
    missing = [one for one in caught if "missing from font" in str(one.message)]
    for one in caught:
        if one not in missing:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if missing:
        told.append(f"{len(missing)} characters are boxes, as no font here has them; on Debian "
                    "`apt-get install fonts-noto-cjk fonts-noto-core` brings some")  # fmt: skip
