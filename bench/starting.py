"""How long it takes to start: nothing heavy is imported before it is needed."""

import subprocess
import sys
from functools import partial

from bench.goals import Measured
from bench.stopwatch import interleaved


def measure(repeats: int) -> list[Measured]:
    """CPU seconds of importing the package and of `--help`, Python's own start taken off."""
    commands = {
        "bare": ["-c", "pass"],
        "import": ["-c", "import pipeline"],
        "help": ["-m", "pipeline", "--help"],
    }
    spent = interleaved({name: partial(_run, words) for name, words in commands.items()}, repeats)
    bare = min(spent["bare"])
    facts = {"bare python": round(bare, 3)}
    return [
        Measured(name, "CPU seconds", min(spent[name]) - bare, None, facts)
        for name in ("import", "help")
    ]


def _run(words: list[str]) -> None:
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
