"""The table as text, and everything measured as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.goals import GOALS, WITHOUT_GOAL, Measured
from manifests.render import encode

LIBRARIES = ("av", "dlib-bin", "librosa", "numpy", "opencv-python-headless", "simplejpeg", "torch",
             "webdataset")  # fmt: skip
HEADINGS = ("what", "measured on", "goal", "ours", "naive", "")


def rendered(lines: Sequence[Measured], machine: dict[str, Any]) -> str:
    """The table, with the machine it was measured on below."""
    cells = [HEADINGS, *(_cells(line) for line in lines)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(HEADINGS))]
    padded = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in cells)
    rows = ["  ".join(row).rstrip() for row in padded]
    rule = "-" * max(len(row) for row in rows)
    return "\n".join([rows[0], rule, *rows[1:], rule, about(machine), NOTE])


def about(machine: dict[str, Any]) -> str:
    """The machine, a line a fact."""
    return "\n".join(f"{name}: {value}" for name, value in machine.items())


NOTE = """\
x in the rows of clips: CPU seconds over those of `ffmpeg -threads 1 -f null` on the same file in
interleaved rounds, the quickest of each; this process and its children, one core, one thread."""


def _cells(line: Measured) -> tuple[str, ...]:
    goal = GOALS.get(line.goal)
    naive = "" if line.naive is None else f"{line.naive:.3g}"
    text, limit = (goal.text, str(goal)) if goal else (WITHOUT_GOAL[line.goal], "-")
    verdict = "" if goal is None else "met" if line.is_met else "MISSED"
    return text, line.subject, limit, f"{line.value:.3g}", naive, verdict


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "ffmpeg": encode.run(["-version"]).stdout.decode().split()[2],
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def save(
    path: Path,
    lines: Sequence[Measured],
    machine: dict[str, Any],
    steps: Sequence[dict[str, Any]] = (),
) -> None:
    """Everything measured, with every round, and the rows of the trainer's steps."""
    rows = [
        {
            "goal": line.goal,
            "limit": str(GOALS.get(line.goal, "")),
            "subject": line.subject,
            "value": line.value,
            "naive": line.naive,
            "met": line.is_met if line.goal in GOALS else None,
            **line.facts,
        }
        for line in lines
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "lines": rows, "steps": list(steps)}, indent=1))
