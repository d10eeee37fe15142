"""The sound of a stored sample from its source file, for pages of sets that store no waveform."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from manifests.recipes import recipe_of
from pipeline.augment import Augmentation
from pipeline.clock import Grid
from pipeline.config import Limits
from pipeline.errors import ClipError
from pipeline.media import open_media
from pipeline.outputs import Outputs
from pipeline.paths import resolve
from pipeline.sound import Wave, decode_sound
from stores import is_remote

PAGE_RATE_HZ = 22050


def source_sound_of(out: Path) -> Callable[[dict[str, Any]], tuple[Wave, int] | None]:
    """A function from a sample's JSON to (waveform (samples, 1), rate); None without its file."""
    home = Outputs(out).plan.manifest_root
    if is_remote(home):
        return lambda meta: None  # a page is not worth fetching videos for
    root = Path(home)

    def sound_of(meta: dict[str, Any]) -> tuple[Wave, int] | None:
        try:
            return _cut(resolve(root, meta["source"]["uri"]), meta)
        except ClipError:
            return None  # the raw file has been moved or deleted since; the page says so

    return sound_of


def _cut(path: Path, meta: dict[str, Any]) -> tuple[Wave, int] | None:
    micros = Fraction(round(meta["t0"] * 1_000_000), 1_000_000)
    grid = Grid(micros, Fraction(meta["fps"]), meta["frames"])
    augmentation = Augmentation(recipe_of(meta["key"], meta["extra"]), grid.t0)
    heard = augmentation.on_source(grid)
    with open_media(path, Limits()) as media:
        part = media.read(heard.t0, heard.end).get("audio")
        sound = decode_sound(part, 1, heard.t0, heard.end) if part else None
        sound = augmentation.sound(sound, grid)
    return None if sound is None else (sound.cut(grid, PAGE_RATE_HZ, 0), PAGE_RATE_HZ)
