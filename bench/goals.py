"""What is to be reached (architecture §8), and what was."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Goal:
    """One promise about speed or memory."""

    text: str
    limit: float
    unit: str
    sense: Literal["<=", ">="] = "<="

    def is_met(self, value: float) -> bool:
        """Whether a measured value keeps the promise."""
        return value <= self.limit if self.sense == "<=" else value >= self.limit

    def __str__(self) -> str:
        """As in the table, `<= 0.95 x`."""
        return f"{self.sense} {self.limit:g} {self.unit}"


GOALS = {
    "kinetics": Goal("Kinetics-like clip, no faces looked for", 0.95, "x"),
    "kinetics auto": Goal("the same, FACES=auto, no face in it", 1.4, "x"),
    "head720": Goal("talking head 720p, landmarks and crops", 1.8, "x"),
    "head1080": Goal("talking head 1080p, landmarks and crops", 1.3, "x"),
    "coverage": Goal("faces: found of those on whole pictures", 0.99, "share", ">="),
    "error": Goal("faces: landmark error over the detector's noise", 1.1, "x"),
    "faster": Goal("faces: faster than dlib on every whole picture", 10.0, "x", ">="),
    "second core": Goal("throughput of two workers over one", 1.9, "x", ">="),
    "cluster": Goal("a shard of 100 clips, all but decoding, on Ray", 2.0, "%"),
    "loader": Goal("loader, clips a CPU second (naive: mp4s on the fly)", 250.0, "/s", ">="),
    "loader members": Goal("the same over one JPEG a tar member", 1.0, "x", ">="),
    "cache": Goal("loader from S3 --cache-gb, epochs 2.. over a folder", 0.95, "x", ">="),
    "upload": Goal("wait of a worker for each upload of 1 s", 0.1, "s"),
    "step": Goal("step of glcm_r18, bf16, batch 32 (naive: eager fp32)", 35.0, "ms"),
    "method": Goal("step of a method over its encoders alone", 1.3, "x"),
    "queue": Goal("queue of 65,536: CPU over that with a copy a step", 1.0, "x"),
    "queue memory": Goal("its memory beside the 64 MiB (naive: a copy)", 64.0, "MiB"),
    "planning": Goal("planning a manifest of 2 M rows, CPU", 60.0, "s"),
    "planning memory": Goal("its peak memory", 2048.0, "MiB"),
    "child memory": Goal("a worker child on 1080p input, peak memory", 600.0, "MiB"),
    "import": Goal("import pipeline", 0.2, "s"),
    "help": Goal("python -m pipeline --help", 1.5, "s"),
}
"""All of them; `x` in the first four means times the floor."""
SCALE_STEPS = {
    "resume": "large set: nothing to make",
    "index": "large set: index and tables",
    "status": "large set: status",
    "errors": "large set: errors",
    "verify": "large set: verify (tars of 100 kB)",
    "report": "large set: report.html",
    "retry": "large set: planning a retry",
    "open": "large set: the trainer opens it",
    "append": "large set: planning rows that came later",
}
WITHOUT_GOAL = {
    "other": "other clip, landmarks and crops",
    "loader jpegs": "decoding the JPEGs of those windows alone",
    **{f"scale {step}": f"{text}, CPU seconds" for step, text in SCALE_STEPS.items()},
    **{f"scale {step} memory": f"{text}, peak MiB" for step, text in SCALE_STEPS.items()},
}
"""What is shown beside them, to compare with."""


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    goal: str
    """Key of `GOALS`."""
    subject: str
    """The file or setting it was measured on."""
    value: float
    naive: float | None = None
    """The same number for the naive way; None where there is none."""
    facts: dict[str, Any] = field(default_factory=dict)
    """CPU seconds of every round and the like, for the JSON."""

    @property
    def is_met(self) -> bool:
        """Whether the goal is reached here."""
        return GOALS[self.goal].is_met(self.value)
