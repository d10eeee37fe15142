"""`python -m bench`: measure, print the table, save it as JSON."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from bench.goals import Measured
from pipeline.sandbox import child_environment


@dataclass(frozen=True)
class Options:
    """The speed table of the shard job, against ffmpeg and against a plain script."""

    out: Path = Path("data/bench/bench.json")
    """Where the numbers go; the files that are measured are kept beside it."""
    repeats: int = 5
    """Rounds of each measurement; the quickest counts."""
    quick: bool = False
    """Made files only, two rounds, a tenth of the rows to plan."""


def main() -> None:
    """Run everything in the environment that a worker child has."""
    options = tyro.cli(Options)
    if any(os.environ.get(name) != value for name, value in child_environment().items()):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **child_environment()})
    _quiet()
    from bench import page

    lines = []
    for line in _measured(options):
        lines.append(line)
        print(f"{line.goal:16} {line.subject:36} {line.value:.3f}", file=sys.stderr, flush=True)
    machine = page.machine()
    page.save(options.out, lines, machine)
    print(page.rendered(lines, machine))
    print(f"saved as {options.out}")


def _measured(options: Options) -> Iterator[Measured]:
    """All lines, in the order of the table."""
    from bench import clips, faces, media, planning, starting, stopwatch, workers

    folder = options.out.parent / f"media-{media.VERSION}"
    made = media.made_media(folder)
    files = made if options.quick else made + media.real_media(folder)
    repeats = 2 if options.quick else options.repeats
    stopwatch.pin_to_one_core()
    for kind in ("kinetics", "head720", "head1080", "other"):
        for file in (file for file in files if file.kind == kind):
            yield from clips.measure(file, repeats)
    for file in (file for file in files if file.kind == "head720"):
        yield from faces.measure(file)
    yield from workers.second_core(made[0], repeats)
    yield from workers.memory(made[2])
    yield from planning.measure(planning.ROWS // 10 if options.quick else planning.ROWS)
    yield from starting.measure(repeats)


def _quiet() -> None:
    """One thread for OpenCV too, and no chatter of codecs."""
    import av.logging
    import cv2

    cv2.setNumThreads(1)
    av.logging.set_level(av.logging.PANIC)


if __name__ == "__main__":
    main()
