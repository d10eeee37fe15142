"""A soak: a job is killed at random for as long as wanted, and must come out as if nobody had.

    python -m tests.faults.soak --minutes 30 --executor ray --json soak.json

A corpus of several hundred clips is made into shards once undisturbed, then round after round under
kills of the driver (SIGKILL, SIGTERM, SIGINT), of the children that decode, and under Ray of its
workers and its node daemon. Whenever the driver is gone, the same command follows at once. After
each round the SHA-256 of all tars, the tables, the ledger and the list of files must be those of
the undisturbed run, and no process may be left. Every other round spares the driver, so that it
lives long enough for its memory to tell something. Exit code 0: all of that held.
"""

import dataclasses
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import tyro

from tests.faults.corpus import corpus
from tests.faults.memory import Growth, Watch, role_of
from tests.faults.sets import SetFacts, ledger_problem, read_set

MARK = "GLAV_SOAK"
"""Environment variable by which the processes of a soak are known, whoever their parent is."""
GONE_WITHIN_SECONDS = 60.0
ATTEMPTS_A_ROUND = 300
MOST_GROWTH = {"driver": 2.0, "worker": 2.0, "child": 6.0}
"""MiB a minute that count as flat. A leak of one decoded 320 x 240 picture (225 KiB) a clip would
be over 30 in a child that makes three clips a second."""
LOCAL_TARGETS = {"driver SIGKILL": 3, "driver SIGTERM": 1, "driver SIGINT": 1, "child SIGKILL": 8}
RAY_TARGETS = {**LOCAL_TARGETS, "worker SIGKILL": 6, "raylet SIGKILL": 2}
"""Who is killed by what, and how often relative to the others."""
EXPECTED_CODES = {
    "driver SIGKILL": {-9}, "driver SIGTERM": {143, -15, -2}, "driver SIGINT": {130, -2},
}  # fmt: skip
"""Exit codes of a driver that was killed so. Before its handlers are set it dies of the signal, and
CPython ends as by SIGINT whatever code is asked for if an interruption met it within `exec`, where
dataclasses are made while modules are loaded."""


@dataclass(frozen=True)
class Options:
    """What to soak, and for how long."""

    minutes: float = 30.0
    """Kills go on for so long; the round under way is then finished in peace."""
    executor: str = "local"
    """local or ray."""
    clips: int = 600
    workers: int = 2
    seed: int = 1
    """Of the corpus and of the kills: who, by what, when."""
    pause: float = 5.0
    """Mean seconds between two kills."""
    media: Path | None = None
    """Folder of real clips; small ones of them become a quarter of the corpus."""
    folder: Path | None = None
    """Work there and leave it; default: a temporary folder, left only if something is wrong. Ray
    wants a short path."""
    json: Path | None = None
    """Where the result goes."""


@dataclass
class Result:
    """What a soak found."""

    options: dict[str, Any]
    rows: int = 0
    tars: int = 0
    rounds: int = 0
    attempts: int = 0
    """Drivers started."""
    kills: dict[str, int] = field(default_factory=dict)
    codes: dict[int, int] = field(default_factory=dict)
    """How often drivers ended with which exit code."""
    problems: list[str] = field(default_factory=list)
    memory: dict[str, Growth] = field(default_factory=dict)
    minutes: float = 0.0


class Soak:
    """One soak; `run` does it all."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._chance = random.Random(options.seed)
        self._mark = secrets.token_hex(8)
        self._log = (folder / "log.txt").open("ab")
        self.result = Result({k: str(v) for k, v in dataclasses.asdict(options).items()})

    def run(self) -> Result:
        """Make the corpus, the undisturbed set, then rounds until time is up."""
        options, result = self._options, self.result
        raw = corpus(self._folder / "raw", options.clips, options.seed, options.media)
        result.rows = sum(path.is_file() for path in raw.rglob("*"))
        started = time.monotonic()
        with Watch() as self._watch:
            whole = self._undisturbed()
            result.tars = len(whole.tars)
            self._end = time.monotonic() + 60 * options.minutes
            while time.monotonic() < self._end and not result.problems:
                self._round(whole, spared=result.rounds % 2 == 1)
                result.rounds += 1
                self._say(f"round {result.rounds}: {sum(result.kills.values())} kills so far")
        result.memory = dict(self._watch.growth())
        result.minutes = (time.monotonic() - started) / 60
        result.problems += list(_not_flat(result.memory))
        return result

    def _undisturbed(self) -> SetFacts:
        """What the set should be."""
        code = self._start(self._folder / "whole").wait()
        whole = read_set(self._folder / "whole") if code == 0 else None
        if whole is None or ledger_problem(whole, self.result.rows):
            raise RuntimeError(f"the undisturbed run ended with {code}: {self._folder}/log.txt")
        return whole

    def _round(self, whole: SetFacts, *, spared: bool) -> None:
        """Make the set once more under kills, and compare."""
        out = self._folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        problems = self.result.problems
        for _ in range(ATTEMPTS_A_ROUND):
            if self._attempt(out, spared) or problems:
                break
        else:
            problems.append(f"not complete after {ATTEMPTS_A_ROUND} drivers")
        if problems:
            return
        problems += [f"left running: {line}" for line in self._left_running()]
        made = read_set(out)
        problems += [*whole.differences(made)]
        problems += list(filter(None, [ledger_problem(made, self.result.rows)]))
        problems += [f"litter: {path}" for path in (self._folder / "t").iterdir()]
        if (code := self._command("verify", str(out)).wait()) != 0:
            problems.append(f"verify ended with {code}")

    def _attempt(self, out: Path, spared: bool) -> bool:
        """One driver from start to end, with kills; whether it completed the set."""
        process = self._start(out)
        done: list[str] = []
        while self._pause(process):
            if (target := self._kill(process, spared)) is not None:
                done.append(target)
        code = process.wait()
        self.result.attempts += 1
        self.result.codes[code] = self.result.codes.get(code, 0) + 1
        if code not in self._codes(done):
            self.result.problems.append(f"a driver ended with {code} after {done or 'no kills'}")
        return code == 0

    def _codes(self, done: list[str]) -> set[int]:
        """How a driver may end after these kills."""
        codes = {0}.union(*(EXPECTED_CODES.get(target, set()) for target in done))
        by_ray = any(target.startswith(("worker", "raylet")) for target in done)
        # 1: a raylet that dies while the driver joins it makes Ray's own code end the driver.
        codes |= {1, 3} if by_ray else set()
        # Ray's native code may crash or abort when a signal meets it while it starts.
        crashes = self._options.executor == "ray" and any(t.startswith("driver") for t in done)
        return codes | ({-6, -11} if crashes else set())

    def _pause(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for the time of the next kill; False if the driver ended or no kill is due."""
        pause = min(self._chance.expovariate(1 / self._options.pause), 6 * self._options.pause)
        if time.monotonic() + pause > self._end:
            pause = 24 * 3600.0
        try:
            process.wait(pause)
        except subprocess.TimeoutExpired:
            return True
        return False

    def _kill(self, process: subprocess.Popen[bytes], spared: bool) -> str | None:
        """Kill somebody; who it was and by what, or None where there was nobody."""
        weights = RAY_TARGETS if self._options.executor == "ray" else LOCAL_TARGETS
        if spared:
            gentle = ("child", "worker")
            weights = {name: w for name, w in weights.items() if name.startswith(gentle)}
        [target] = self._chance.choices(list(weights), list(weights.values()))
        place = self._chance.random()
        role, _, name = target.partition(" ")
        victims = sorted(_of_role(role, process.pid))
        if not victims:
            return None
        try:
            os.kill(victims[int(place * len(victims))], signal.Signals[name])
        except ProcessLookupError:
            return None
        self.result.kills[target] = self.result.kills.get(target, 0) + 1
        if role == "driver":
            self._gone(process, target)
        return target

    def _gone(self, process: subprocess.Popen[bytes], target: str) -> None:
        """Wait for a driver to obey; one that does not is a problem, and is ended."""
        try:
            process.wait(GONE_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            said = f"a driver was still there {GONE_WITHIN_SECONDS:g} s after {target}"
            self.result.problems.append(said)
            process.kill()

    def _left_running(self) -> list[str]:
        """Processes of this soak that are there although no driver is."""
        deadline = time.monotonic() + GONE_WITHIN_SECONDS
        while (left := _marked(self._mark)) and time.monotonic() < deadline:
            time.sleep(0.5)
        return left

    def _start(self, out: Path) -> subprocess.Popen[bytes]:
        """The driver: always the same command."""
        options = self._options
        more = ["--max-error-rate", "1"] if options.media is not None else []
        process = self._command(
            "shards", "--dataset", "folder", "--root", str(self._folder / "raw"), "--out", str(out),
            "--faces", "off", "--seconds-per-shard", "12", "--timeout", "120",
            "--executor", options.executor, "--workers", str(options.workers), *more,
        )  # fmt: skip
        self._watch.driver = process.pid
        self._watch.at_work = self._middle(out)
        return process

    def _middle(self, out: Path) -> Callable[[], bool]:
        """Says whether the job under way has begun to commit shards and is not at its end."""
        first, last = _committed(out) + 2, self.result.tars - 2
        return lambda: first <= _committed(out) <= last

    def _command(self, *arguments: str) -> subprocess.Popen[bytes]:
        (self._folder / "t").mkdir(exist_ok=True)
        environment = {**os.environ, MARK: self._mark, "TMPDIR": str(self._folder / "t")}
        environment.pop("RAY_ADDRESS", None)
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            env=environment,
            stdout=self._log,
            stderr=self._log,
        )

    def _say(self, line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _committed(out: Path) -> int:
    """Shards that are there."""
    return sum(1 for _ in (out / "shards").glob("*.json"))


def _of_role(role: str, driver: int) -> list[int]:
    """Process ids of the driver, or of those below it that play a role."""
    if role == "driver":
        return [driver]
    found = []
    try:
        for process in psutil.Process(driver).children(recursive=True):
            if role_of(process, driver) == role:
                found.append(process.pid)
    except psutil.Error:
        return []  # the driver has just ended, or one of them
    return found


def _marked(mark: str) -> list[str]:
    """Processes that were started by this soak, in words."""
    return [
        f"{process.pid} {process.name()}"
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get(MARK) == mark
    ]


def _not_flat(memory: dict[str, Growth]) -> list[str]:
    return [
        f"memory of each {role} grows by {found.slope_mib_per_minute:.1f} MiB a minute, more than "
        f"{MOST_GROWTH[role]}"
        for role, found in memory.items()
        if role in MOST_GROWTH and (found.slope_mib_per_minute or 0) > MOST_GROWTH[role]
    ]


def lines(result: Result) -> list[str]:
    """The table at the end."""
    kills = ", ".join(f"{name} {count}" for name, count in sorted(result.kills.items()))
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(result.codes.items()))
    table = [
        f"{result.minutes:.1f} min, {result.rounds} rounds of {result.rows} rows in {result.tars} "
        f"tars, seed {result.options['seed']}, executor {result.options['executor']}",
        f"kills: {kills or 'none'}",
        f"drivers: {result.attempts}, by exit code {codes}",
        f"{'process':<12}{'seen':>6}{'longest s':>11}{'watched s':>11}{'peak MiB':>10}"
        f"{'MiB/min':>9}{'bound':>7}",
    ]
    for role, found in sorted(result.memory.items()):
        slope = found.slope_mib_per_minute
        table.append(
            f"{role:<12}{found.processes:>6}{found.longest_seconds:>11.0f}"
            f"{found.watched_seconds:>11.0f}{found.peak_mib:>10.0f}"
            f"{'short' if slope is None else f'{slope:.2f}':>9}{MOST_GROWTH.get(role, '-'):>7}"
        )
    verdict = "all as undisturbed, nothing lost, no litter"
    return [*table, *(f"WRONG: {problem}" for problem in result.problems)] + (
        [] if result.problems else [verdict]
    )


def main(options: Options) -> int:
    """Soak, print the table, write the JSON; 0 if all held."""
    if options.executor not in ("local", "ray"):
        sys.exit(f"--executor {options.executor}: expected local or ray")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    result = Soak(options, folder).run()
    print(*lines(result), sep="\n", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(dataclasses.asdict(result), indent=1))
    if result.problems:
        print(f"the drivers' words and the last set are in {folder}")
    elif options.folder is None:
        shutil.rmtree(folder)
    return 1 if result.problems else 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or drivers would be deaf after `&`
    sys.exit(main(tyro.cli(Options)))
