"""A plugin (GLAV_PLUGINS) that hurts the child process opening a file, by the file's name."""

import ctypes
import importlib
import os
import signal
import time

OPENERS = [importlib.import_module(f"pipeline.{name}") for name in ("sample", "playback")]
_really_open = OPENERS[0].open_media


def _hog():
    hoard = []
    while True:
        hoard.append(bytearray(1 << 26))


def _deaf_hang():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(1000)


def _chatter():
    os.write(1, b"garbage \n{not json}\n" * 100)
    print("more garbage")


def _surprise():
    raise RuntimeError("nobody expects this\n\x1b[31m")


def _killed_once(path):
    """SIGKILL the first time, as the kernel or a person would; the mark is beside the file."""
    mark = path.with_suffix(".txt")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


FAULTS = {
    "segfault": lambda path: ctypes.string_at(0),
    "gil": lambda path: ctypes.PyDLL(None).sleep(1000),
    "deaf": lambda path: _deaf_hang(),
    "exit": lambda path: os._exit(3),
    "hog": lambda path: _hog(),
    "surprise": lambda path: _surprise(),
    "chatter": lambda path: _chatter(),
    "killed_once": _killed_once,
}


def _open(path, limits):
    FAULTS.get(path.stem, lambda path: None)(path)
    return _really_open(path, limits)


for opener in OPENERS:
    setattr(opener, "open_media", _open)  # noqa: B010
