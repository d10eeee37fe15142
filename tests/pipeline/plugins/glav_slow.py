"""A plugin (GLAV_PLUGINS) that makes the child process wait before each file it opens."""

import importlib
import time

SECONDS = 0.5

sample = importlib.import_module("pipeline.sample")
_really_open = sample.open_media


def _open(path, limits):
    time.sleep(SECONDS)
    return _really_open(path, limits)


setattr(sample, "open_media", _open)  # noqa: B010
