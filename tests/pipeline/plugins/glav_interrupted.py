"""A plugin (GLAV_PLUGINS) that presses Ctrl-C when the tables are written and the index is not."""

import importlib
import os
import signal

index = importlib.import_module("pipeline.index")
_really_write = index.write_atomically


def _write(path, data):
    if path.name == "shardindex.json":
        os.kill(os.getpid(), signal.SIGINT)
    return _really_write(path, data)


setattr(index, "write_atomically", _write)  # noqa: B010
