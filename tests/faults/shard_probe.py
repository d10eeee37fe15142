"""Reads hostile sets as trainer and `verify` do: a program of its own, so that memory can be told.

python -m tests.faults.shard_probe SET ...     one line of JSON a set
"""

import json
import resource
import sys
from pathlib import Path

from pipeline.verify import verify
from train.cuts import Clip, Cut, Reads, Stretch
from train.errors import TrainError
from train.loader import ClipLoader
from train.mixture import open_mixture, parse_shards
from train.plan import Plan

FRAMES = 8


def pictures_and_waveform(clip: Clip, rng: object) -> Cut:
    """The first frames, and a second of sound."""
    return Cut([*range(FRAMES)], (Stretch(0, 24_000),))


SILENT = Reads(FRAMES, FRAMES)
SOUNDING = Reads(FRAMES, FRAMES, mel=False, wave_rate_hz=24_000, cut=pictures_and_waveform)


def said_by_trainer(folder: str) -> str:
    """The sentence with which an epoch is refused; empty if it is not."""
    index = json.loads((Path(folder) / "shardindex.json").read_bytes())
    reads = SOUNDING if index["config"]["waveform_rate_hz"] else SILENT
    try:
        plan = Plan(open_mixture(parse_shards(folder, Path("data")), reads=reads), 0, 1)
        list(ClipLoader(plan, workers=0).one_epoch())
    except TrainError as error:
        return f"{type(error).__name__} {error.exit_code} {error}"
    return ""


def main(folders: list[str]) -> None:
    """Print what each set led to."""
    for folder in folders:
        found = {"set": Path(folder).name}
        for name, read in (("trainer", said_by_trainer), ("verify", said_by_verify)):
            try:
                found[name] = read(folder)
            except Exception as error:  # what is no sentence is what the tests look for
                found[name] = f"NOT REFUSED IN WORDS: {error!r}"[:300]
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps({**found, "peak_mib": peak_mib}), flush=True)


def said_by_verify(folder: str) -> str:
    """Exit code and findings."""
    verdict = verify(Path(folder), deep=True, progress=None)
    return " ".join([str(int(verdict.exit_code)), *verdict.lines()])


if __name__ == "__main__":
    main(sys.argv[1:])
