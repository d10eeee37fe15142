"""The sound of a stored sample from its source file, for pages of sets that store no waveform.

The source is as little to be trusted as when its shard was made, and may be another file by now, so
it is opened in a child process here, too (`pipeline.sandbox`).
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from manifests.recipes import recipe_of
from pipeline.augment import Augmentation
from pipeline.clock import Grid
from pipeline.config import Limits
from pipeline.errors import ClipError
from pipeline.item import Failed, Item, Made, Opened, Outcome
from pipeline.listen import SoundOf, Wave
from pipeline.media import open_media
from pipeline.outputs import Outputs
from pipeline.paths import resolve
from pipeline.sandbox import Sandbox
from pipeline.sound import decode_sound
from stores import is_remote

WAVE = "wave"
"""Member of what the child makes: float32 samples."""


@dataclass(frozen=True)
class SourceSound:
    """What a child makes of a sample's source for a page: its sound in one channel."""

    page_rate_hz: int = 22050

    def as_dict(self) -> dict[str, Any]:
        """As Content."""
        return {"page_rate_hz": self.page_rate_hz}


def source_sound_of(out: Path) -> SoundOf:
    """A function from a sample's JSON to (waveform (samples, 1), rate); None without its file."""
    root = Outputs(out).plan.manifest_root
    if is_remote(root):
        return lambda meta: None  # a page is not worth fetching videos for
    return _InAChild(root)


class _InAChild:
    """The function; its child starts with the first sample, and ends with it."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._content = SourceSound()
        self._sandbox = Sandbox(self._content, Limits())
        weakref.finalize(self, self._sandbox.close)

    def __call__(self, meta: dict[str, Any]) -> tuple[Wave, int] | None:
        """None also where the file was moved, deleted or damaged since; the page says so."""
        item = Item(self._root, ({"uri": meta["source"]["uri"], "meta": meta},))
        [(outcome, _)] = self._sandbox.run(item)
        if isinstance(outcome, Failed) or WAVE not in outcome.members:
            return None
        wave = np.frombuffer(outcome.members[WAVE], np.float32)
        return wave.reshape(-1, 1), self._content.page_rate_hz


# --- in the child -------------------------------------------------------------------------------


def sound_outcomes(item: Item, page_rate_hz: int, limits: Limits) -> Iterator[Outcome | Opened]:
    """The sound of each of an item's samples; no member where there is none."""
    for index, row in enumerate(item.rows):
        meta = row["meta"]
        yield Opened(float(meta["frames"] / Fraction(meta["fps"])))
        try:
            wave = _cut(resolve(Path(item.root), row["uri"]), meta, page_rate_hz, limits)
        except ClipError as error:
            yield Failed(index, error)
            continue
        yield Made(index, {} if wave is None else {WAVE: wave.tobytes()}, {})


def _cut(path: Path, meta: dict[str, Any], rate_hz: int, limits: Limits) -> Wave | None:
    micros = Fraction(round(meta["t0"] * 1_000_000), 1_000_000)
    grid = Grid(micros, Fraction(meta["fps"]), meta["frames"])
    augmentation = Augmentation(recipe_of(meta["key"], meta["extra"]), grid.t0)
    heard = augmentation.on_source(grid)
    with open_media(path, limits) as media:
        part = media.read(heard.t0, heard.end).get("audio")
        sound = decode_sound(part, 1, heard.t0, heard.end) if part else None
        sound = augmentation.sound(sound, grid)
    return None if sound is None else np.asarray(sound.cut(grid, rate_hz, 0), np.float32)
