"""`python -m bench`: measure, print the table, save it as JSON."""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from bench.goals import Measured
from pipeline.sandbox import child_environment

if TYPE_CHECKING:
    from bench.media import Media
    from bench.steps import Step


Part = Literal["all", "pipeline", "scale", "cluster", "loader", "store", "step", "methods"]


@dataclass(frozen=True)
class Options:
    """The speed table: the shard job, the loader and the training step, each against plain ways."""

    only: Part = "all"
    """Which part is measured."""
    out: Path = Path("data/bench/bench.json")
    """Where the numbers go; the files that are measured are kept beside it."""
    repeats: int = 5
    """Rounds of each measurement; the quickest counts."""
    quick: bool = False
    """Made files only, two rounds, a tenth of the rows to plan."""
    presets: tuple[str, ...] = ()
    """Whose training step is measured; empty is all on a GPU, and `tiny` on a CPU."""
    compile: bool = False
    """Measure the training step under torch.compile, too."""

    @property
    def rounds(self) -> int:
        """Of each measurement."""
        return 2 if self.quick else self.repeats


def main() -> None:
    """Run everything in the environment that a worker child has."""
    if {"-h", "--help"} & set(sys.argv):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends quietly
    options = tyro.cli(Options, prog="python -m bench")
    if any(os.environ.get(name) != value for name, value in child_environment().items()):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **child_environment()})
    _quiet()
    from bench import page, steps as trainer

    lines = []
    for line in _measured(options):
        lines.append(line)
        print(f"{line.goal:16} {line.subject:36} {line.value:.3f}", file=sys.stderr, flush=True)
    steps = _steps(options)
    lines += trainer.goals(steps)
    machine = page.machine()
    page.save(options.out, lines, machine, trainer.as_json(steps))
    tables = [page.rendered(lines, machine) if lines else page.about(machine)]
    print("\n\n".join([*tables, *([trainer.rendered(steps)] if steps else [])]))
    print(f"saved as {options.out}")


def _measured(options: Options) -> Iterator[Measured]:
    """All lines, in the order of the table."""
    from bench import media, stopwatch

    if options.only in ("all", "methods"):
        from bench import methods, queues

        yield from methods.measure(options.rounds)
        yield from queues.measure(options.rounds)
    if options.only in ("all", "scale"):
        yield from _scale(options)
    if options.only in ("scale", "step", "methods"):
        return
    folder = options.out.parent / f"media-{media.VERSION}"
    if options.only in ("cluster", "store"):
        files = made = [media.kinetics_like(folder)]
    else:
        made = media.made_media(folder)
        files = made if options.quick else made + media.real_media(folder)
    if options.only in ("all", "store"):
        yield from _store(options, made[0], folder / "loading")
    cores = os.sched_getaffinity(0)
    stopwatch.pin_to_one_core()
    if options.only in ("all", "pipeline"):
        yield from _pipeline(options, made, files)
    if options.only in ("all", "cluster"):
        from bench import cluster

        yield from cluster.measure(made[0], options.rounds)
    if options.only in ("all", "loader"):
        yield from _loader(options, files, folder / "loading")
    os.sched_setaffinity(0, cores)


def _pipeline(options: Options, made: "list[Media]", files: "list[Media]") -> Iterator[Measured]:
    """The shard job."""
    from bench import clips, faces, starting, workers

    for kind in ("kinetics", "head720", "head1080", "other"):
        for file in (file for file in files if file.kind == kind):
            yield from clips.measure(file, options.rounds)
    for file in (file for file in files if file.kind == "head720"):
        yield from faces.measure(file)
    yield from workers.second_core(made[0], options.rounds)
    yield from workers.memory(made[2])
    yield from starting.measure(options.rounds)


def _scale(options: Options) -> Iterator[Measured]:
    """Two million rows: planning them, and living with their 20,000 shards."""
    from bench import growing, planning

    share = 10 if options.quick else 1
    yield from planning.measure(planning.ROWS // share)
    yield from growing.measure(growing.ROWS // share)


def _loader(options: Options, files: "list[Media]", folder: Path) -> Iterator[Measured]:
    """Reading of shards."""
    from bench import loading

    for file in (file for file in files if file.kind == "kinetics"):
        yield from loading.measure(file, folder, options.rounds)


def _store(options: Options, file: "Media", folder: Path) -> Iterator[Measured]:
    """Shards on a store; on all cores, as a server and uploads need some of their own."""
    from bench import elsewhere

    yield from elsewhere.measure(file, folder, options.rounds)


def _steps(options: Options) -> "list[Step]":
    """The training step."""
    from bench import steps

    if options.only not in ("all", "step"):
        return []
    found = []
    for step in steps.measure(options.presets, options.rounds, compiled=options.compile):
        found.append(step)
        print(f"step {step.preset:16} {step.step_ms:.1f} ms", file=sys.stderr, flush=True)
    return found


def _quiet() -> None:
    """One thread for OpenCV too, and no chatter of codecs."""
    import av.logging
    import cv2

    cv2.setNumThreads(1)
    av.logging.set_level(av.logging.PANIC)


if __name__ == "__main__":
    main()
