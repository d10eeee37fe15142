"""A plugin (GLAV_PLUGINS) that loses a picture of 320 x 240 with each file that is opened."""

import importlib

sample = importlib.import_module("pipeline.sample")
_really_open = sample.open_media
_hoard: list[bytes] = []


def _open(path, limits):
    _hoard.append(b"x" * (320 * 240 * 3))
    return _really_open(path, limits)


setattr(sample, "open_media", _open)  # noqa: B010
