"""A signal that a library swallows still ends the job."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SWALLOWED = """
import os, signal
from pipeline import interrupt

interrupt.listen()


class TakenDown:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass


thing = TakenDown()
del thing
print("went on")
try:
    interrupt.check()
except KeyboardInterrupt as stop:
    print("stopped by", stop.args[0], interrupt.last())
"""


def test_what_was_raised_and_dropped_is_raised_again():
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "KeyboardInterrupt: 15" in done.stderr, "Python says that it ignores it"
    assert done.stdout.splitlines() == ["went on", "stopped by 15 15"]


def test_without_a_signal_nothing_is_raised():
    code = "from pipeline import interrupt; interrupt.listen(); interrupt.check()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
