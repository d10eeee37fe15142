"""A soak: a job is killed at random for as long as wanted, and must come out as if nobody had.

    python -m tests.faults.soak --minutes 30 --executor ray --nodes 2 --json soak.json
    python -m tests.faults.soak --minutes 30 --store --long-pass 2000

A corpus of several hundred clips is made into shards once undisturbed, then round after round under
kills of the driver (SIGKILL, SIGTERM, SIGINT), of the children that decode, and under Ray of its
workers and its node daemon. With --nodes the job runs on a cluster whose nodes are killed and join;
with --store the set lies on an S3 server that is away, refuses or does not answer for a while.
Whenever the driver is gone, the same command follows at once. After each round the SHA-256 of all
tars, the tables, the ledger and the list of files must be those of the undisturbed run, and no
process may be left. Every other round spares the driver, so that it lives long enough for its
memory to tell something; a long pass is one run that nobody disturbs, whose memory is set against
the clips it made. Exit code 0: all of that held.
"""

import contextlib
import dataclasses
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from tests.faults.corpus import corpus, many_times
from tests.faults.kills import drawn, expected_codes, left_running, targets, victims
from tests.faults.memory import Watch
from tests.faults.nodes import Nodes, ray_cluster
from tests.faults.outages import KINDS, LONG_EVERY, Shelf, shelf
from tests.faults.places import Folders, Made
from tests.faults.sets import SetFacts, ledger_problem
from tests.faults.soak_result import Result, lines, not_flat, write

MARK = "GLAV_SOAK"
"""Environment variable by which the processes of a soak are known, whoever their parent is."""
REPOSITORY = Path(__file__).parents[2]
GONE_WITHIN_SECONDS = 60.0
ATTEMPTS_A_ROUND = 300


@dataclass(frozen=True)
class Options:
    """What to soak, and for how long."""

    minutes: float = 30.0
    """Kills go on for so long; the round under way is then finished in peace."""
    executor: str = "local"
    """local or ray."""
    nodes: int = 0
    """Under Ray: a cluster of so many nodes of one CPU, one of which at a time is killed and
    replaced; 0: a Ray of the job's own."""
    store: bool = False
    """The set lies on an S3 server (moto), which has outages."""
    clips: int = 600
    workers: int = 2
    seed: int = 1
    """Of the corpus and of the kills: who, by what, when."""
    pause: float = 5.0
    """Mean seconds between two kills."""
    long_pass: int = 0
    """Clips of one undisturbed run at the end, the same files again and again under other names;
    memory is fitted against them. 0: none."""
    media: Path | None = None
    """Folder of real clips; small ones of them become a quarter of the corpus."""
    folder: Path | None = None
    """Work there and leave it; default: a temporary folder, left only if something is wrong. Ray
    wants a short path."""
    json: Path | None = None
    """Where the result goes."""

    def problem(self) -> str:
        """Why they cannot be; empty if they can."""
        if self.executor not in ("local", "ray"):
            return f"--executor {self.executor}: expected local or ray"
        if self.nodes and self.executor != "ray":
            return f"--nodes {self.nodes} needs --executor ray"
        if self.nodes == 1 or self.nodes < 0:
            return f"--nodes {self.nodes}: expected 0, or 2 and more, of which one may be missing"
        if self.media is not None and not self.media.is_dir():
            return f"--media {self.media}: no such folder"
        if self.json is not None and not self.json.parent.is_dir():
            return f"--json {self.json}: its folder is not there; make it first"
        return ""

    def placed(self) -> "Options":
        """The same with absolute paths: a cluster's nodes start elsewhere, and so do we then."""
        names = ("media", "folder", "json")
        paths = {name: path.absolute() for name in names if (path := getattr(self, name))}
        return dataclasses.replace(self, **paths)

    def stated(self) -> dict[str, Any]:
        """Those that matter for what was found; no place of this machine."""
        said = dataclasses.asdict(self) | {"media": self.media is not None}
        return {name: value for name, value in said.items() if name not in ("folder", "json")}


class Soak:
    """One soak; `run` does it all."""

    def __init__(
        self, options: Options, folder: Path, place: Folders | Shelf, nodes: Nodes | None
    ) -> None:
        self._options = options
        self._folder = folder
        self._place = place
        self._nodes = nodes
        self._chance = random.Random(options.seed)
        self._mark = secrets.token_hex(8)
        self._log = (folder / "log.txt").open("ab")
        self.result = Result(options.stated())

    def run(self) -> Result:
        """Make the corpus, the undisturbed set, then rounds until time is up."""
        options, result = self._options, self.result
        self._raw = corpus(self._folder / "raw", options.clips, options.seed, options.media)
        result.rows = sum(path.is_file() for path in self._raw.rglob("*"))
        started = time.monotonic()
        with Watch() as self._watch:
            whole = self._undisturbed("whole", self._raw, result.rows)
            result.tars = len(whole.tars)
            self._end = time.monotonic() + 60 * options.minutes
            while time.monotonic() < self._end and not result.problems:
                self._round(whole, spared=result.rounds % 2 == 1)
                result.rounds += 1
                self._say(f"round {result.rounds}: {sum(result.kills.values())} faults so far")
        result.memory = dict(self._watch.growth())
        result.minutes = (time.monotonic() - started) / 60
        result.problems += not_flat(result.memory)
        return result

    def _undisturbed(self, name: str, raw: Path, rows: int) -> SetFacts:
        """What a set should be."""
        code = self._start(name, raw).wait()
        whole = self._place.read(name) if code == 0 else None
        if whole is None or ledger_problem(whole, rows):
            raise RuntimeError(f"the undisturbed run ended with {code}: {self._folder}/log.txt")
        return whole

    def long_pass(self, clips: int) -> None:
        """One run over many clips, watched from its first shards to its last; after `run`."""
        raw, count = many_times(self._raw, self._folder / "many", clips)
        self._say(f"one undisturbed run over {count} clips")
        with Watch() as self._watch:
            self._undisturbed("long", raw, count)
        self.result.long_pass = dict(self._watch.growth())
        self.result.problems += not_flat(self.result.long_pass)

    # --- a round ---

    def _round(self, whole: SetFacts, *, spared: bool) -> None:
        """Make the set once more under kills, and compare."""
        self._place.remove("out")
        problems = self.result.problems
        for _ in range(ATTEMPTS_A_ROUND):
            if self._attempt(spared) or problems:
                break
        else:
            problems.append(f"not complete after {ATTEMPTS_A_ROUND} drivers")
        self._place.calm()
        if not problems:
            problems += self._found_wrong(whole)

    def _found_wrong(self, whole: SetFacts) -> Iterator[str]:
        """In what the set and what is left of its making are not as they should be."""
        yield from (f"left running: {line}" for line in self._left_running())
        if (code := self._command("verify", self._place.url("out")).wait()) != 0:
            yield f"verify ended with {code}"
        made = self._place.read("out")
        yield from whole.differences(made)
        yield from filter(None, [ledger_problem(made, self.result.rows)])
        yield from (f"litter: {path}" for path in (self._folder / "t").iterdir())
        yield from (f"litter: {path}" for path in self._place.litter())

    def _attempt(self, spared: bool) -> bool:
        """One driver from start to end, with kills; whether it completed the set."""
        done = self._place.troubles_now()
        process = self._start("out", self._raw)
        with contextlib.ExitStack() as stack:
            stack.callback(process.kill)  # if the soak itself fails
            while self._pause(process):
                done += self._strike(process, spared)
            code = process.wait()
        self.result.attempts += 1
        self.result.codes[code] = self.result.codes.get(code, 0) + 1
        if code not in expected_codes(done, ray=self._options.executor == "ray"):
            self.result.problems.append(f"a driver ended with {code} after {done or 'no kills'}")
        return code == 0

    def _pause(self, process: "subprocess.Popen[bytes]") -> bool:
        """Wait for the time of the next kill; False if the driver ended or no kill is due."""
        pause = min(self._chance.expovariate(1 / self._options.pause), 6 * self._options.pause)
        if time.monotonic() + pause > self._end:
            pause = 24 * 3600.0
        try:
            process.wait(pause)
        except subprocess.TimeoutExpired:
            return True
        return False

    # --- faults ---

    def _strike(self, process: "subprocess.Popen[bytes]", spared: bool) -> list[str]:
        """Hit somebody; who it was and by what, nothing where there was nobody."""
        ray, store = self._options.executor == "ray", self._options.store
        weights = targets(ray=ray, cluster=self._nodes is not None, store=store, spared=spared)
        target, place = drawn(self._chance, weights), self._chance.random()
        is_long = self._chance.random() < 1 / LONG_EVERY
        if target in KINDS:
            done = self._place.strike(target, place, is_long=is_long)
        elif target == "node" and self._nodes is not None:
            done = [self._nodes.strike(place)]
        else:
            done = self._kill(process, target, place)
        for name in done:
            if name == "node joined":
                self.result.joined += 1
            else:
                self.result.kills[name] = self.result.kills.get(name, 0) + 1
        return done

    def _kill(self, process: "subprocess.Popen[bytes]", target: str, place: float) -> list[str]:
        """Send a signal to one of those who play a role."""
        role, _, name = target.partition(" ")
        found = victims(role, process.pid)
        if not found:
            return []
        try:
            os.kill(found[int(place * len(found))], signal.Signals[name])
        except ProcessLookupError:
            return []
        if role == "driver":
            self._gone(process, target)
        return [target]

    def _gone(self, process: "subprocess.Popen[bytes]", target: str) -> None:
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
        while (left := left_running(MARK, self._mark)) and time.monotonic() < deadline:
            time.sleep(0.5)
        return left

    # --- the job ---

    def _start(self, name: str, raw: Path) -> "subprocess.Popen[bytes]":
        """The driver: always the same command."""
        options = self._options
        more = ["--max-error-rate", "1"] if options.media is not None else []
        more += ["--ray-address", self._nodes.address] if self._nodes is not None else []
        process = self._command(
            "shards", "--dataset", "folder", "--root", str(raw), "--out", self._place.url(name),
            "--faces", "off", "--seconds-per-shard", "12", "--timeout", "120",
            "--executor", options.executor, "--workers", str(options.workers), *more,
        )  # fmt: skip
        made = Made(self._place.home(name), options.workers)
        self._watch.driver = process.pid
        self._watch.at_work = made.is_in_the_middle
        self._watch.clips = made.clips
        return process

    def _command(self, *arguments: str) -> "subprocess.Popen[bytes]":
        (self._folder / "t").mkdir(exist_ok=True)
        environment = {**os.environ, MARK: self._mark, "TMPDIR": str(self._folder / "t")}
        environment.pop("RAY_ADDRESS", None)
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=self._log,
            stderr=self._log,
        )

    def _say(self, line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


@contextlib.contextmanager
def _prepared(options: Options, folder: Path) -> Iterator[Soak]:
    """A soak with its store and its cluster, whose nodes know of the store."""
    with contextlib.ExitStack() as stack:
        place: Folders | Shelf = Folders(folder)
        if options.store:
            place = stack.enter_context(shelf(folder))
        nodes = None
        if options.nodes:
            (folder / "elsewhere").mkdir(exist_ok=True)
            nodes = Nodes(stack.enter_context(ray_cluster(folder / "elsewhere")), options.nodes)
        yield Soak(options, folder, place, nodes)


def main(options: Options) -> int:
    """Soak, print the table, write the JSON; 0 if all held."""
    if said := options.problem():
        sys.exit(said)
    options = options.placed()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    with _prepared(options, folder) as soak:
        result = soak.run()
        _save(result, options)  # the long pass may take long
        if options.long_pass and not result.problems:
            soak.long_pass(options.long_pass)
            _save(result, options)
    print(*lines(result), sep="\n", flush=True)
    if result.problems:
        print(f"the drivers' words and the last set are in {folder}")
    elif options.folder is None:
        shutil.rmtree(folder)
    return 1 if result.problems else 0


def _save(result: Result, options: Options) -> None:
    if options.json is not None:
        write(result, options.json)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or drivers would be deaf after `&`
    sys.exit(main(tyro.cli(Options)))
