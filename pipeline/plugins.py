"""Private data sets, methods and tasks without a fork: `GLAV_PLUGINS=my_package,other`."""

import importlib
import os


def load_plugins() -> tuple[str, ...]:
    """Import the packages named in the environment; they add themselves to the plain dicts."""
    names = tuple(filter(None, os.environ.get("GLAV_PLUGINS", "").split(",")))
    for name in names:
        importlib.import_module(name.strip())
    return names
