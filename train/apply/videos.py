"""Plain videos -> a temporary shard set, made by the pipeline's own command in its own process.

So there is one decoding path, and a video is seen as a clip of a shard set is. Times are anchored:
they count from the first picture or sound of the file, a video without sound is kept, and what has
no pictures at all becomes a second set of sound alone.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stores import open_store
from train.errors import TrainError, UsageError
from train.evaluation.labelled import ERRORS, MANIFEST, LabelledSet, open_labelled
from train.index import INDEX_NAME

log = logging.getLogger(__name__)

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where `python -m pipeline` is found."""
DEFAULT_PROFILE, SOUND_PROFILE = "glcm", "sound"
NO_VIDEO = "no_video"
INCOMPLETE = 3
"""The pipeline's exit code when no row became a sample."""


@dataclass(frozen=True)
class Video:
    """A file, or a part of it."""

    path: Path
    start_seconds: float | None = None
    end_seconds: float | None = None


@dataclass(frozen=True)
class Recipe:
    """How the pipeline looks at videos."""

    profile: str = DEFAULT_PROFILE
    """What is stored, see `python -m pipeline shards --help`."""
    fps: str | None = None
    """Frames a second; None is the profile's."""
    faces: str | None = None
    """auto, on or off; None is the profile's."""
    cut_seconds: float | None = None
    """Each video is cut into windows of so many seconds."""
    workers: int | None = None
    """Videos decoded at the same time; None is the usable cores."""
    sound_alone: bool = True
    """Files without pictures become a set of their own."""


@dataclass(frozen=True)
class Made:
    """What videos became."""

    sets: list[LabelledSet] = field(default_factory=list)
    """Pictures (and sound) first, then sound alone; either may be missing."""
    failed: list[tuple[Path, str]] = field(default_factory=list)
    """Videos that became nothing, and why."""
    videos: list[Video] = field(default_factory=list)

    def video_of(self, labelled: LabelledSet) -> dict[str, Video]:
        """The video of each key of a set."""
        groups = zip(*(labelled.manifest[name].to_pylist() for name in ("key", "group_id")),
                     strict=True)  # fmt: skip
        return {key: self.videos[number_of(group)] for key, group in groups}


def existing(paths: Sequence[str]) -> list[Path]:
    """The files that are named, each once.

    Raises:
        UsageError: one is not there, or is no file.
    """
    found: dict[Path, Path] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir():
            raise UsageError(
                f"{path} is a folder without {INDEX_NAME}; name the videos in it ({path}/*.mp4), "
                f"or make shards of it: make shards DATASET=folder ROOT={path}"
            )
        if not path.is_file():
            raise UsageError(f"there is no file {path}")
        found.setdefault(path.resolve(), path)
    return list(found.values())


@contextmanager
def shards_of(videos: Sequence[Video], recipe: Recipe) -> Iterator[Made]:
    """Make shards of videos; they are gone after the block.

    Raises:
        UsageError: the pipeline refuses the profile or a flag; its sentence stands above.
        TrainError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="glav-") as name:
        folder = Path(name)
        made = Made(videos=list(videos))
        errors = _make(folder / "pictures", videos, recipe, made)
        silent = [number for number, (reason, _) in errors.items() if reason == NO_VIDEO]
        if recipe.sound_alone and silent and recipe.profile != SOUND_PROFILE:
            fps = json.loads((folder / "pictures" / "config.json").read_bytes())["config"]["fps"]
            sound = Recipe(SOUND_PROFILE, fps, None, recipe.cut_seconds, recipe.workers)
            for number in silent:
                del errors[number]
            errors |= _make(folder / "sound", videos, sound, made, silent)
        for number, (reason, detail) in sorted(errors.items()):
            made.failed.append((videos[number].path, f"{reason}: {detail}"))
        yield made


def number_of(group: str) -> int:
    """`table:7` -> 7."""
    return int(group.rpartition(":")[2])


def _make(
    out: Path, videos: Sequence[Video], recipe: Recipe, made: Made, only: Sequence[int] = ()
) -> dict[int, tuple[str, str]]:
    """One set; adds it to `made` if anything became a sample.

    Returns:
        Reason and detail by number of the video, where there is no sample.
    """
    numbers = list(only) or list(range(len(videos)))
    paths = {number: videos[number].path.resolve() for number in numbers}
    root = Path(os.path.commonpath([path.parent for path in paths.values()]))
    rows = [_row(number, paths[number].relative_to(root), videos[number]) for number in numbers]
    table = out.with_suffix(".jsonl")
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _run_pipeline(out, table, root, recipe)
    manifest = pq.read_table(out / MANIFEST, columns=["key", "group_id"])
    group_of = dict(zip(*(manifest[name].to_pylist() for name in ("key", "group_id")), strict=True))
    errors = pq.read_table(out / ERRORS, columns=["key", "reason", "detail"]).to_pylist()
    found = {number_of(group_of[row["key"]]): (row["reason"], row["detail"]) for row in errors}
    if len(errors) < len(manifest):
        made.sets.append(open_labelled(open_store(str(out))))
        there = {number_of(group_of[key]) for key in made.sets[-1].row_of}
        for number in there & found.keys():  # some windows of it
            log.warning("%s: some windows are missing (%s: %s)", videos[number].path,
                        *found.pop(number))  # fmt: skip
    return found


def _row(number: int, path: Path, video: Video) -> dict[str, Any]:
    return {
        "path": str(path),
        "group": str(number),
        "anchored": True,
        "start": video.start_seconds,
        "end": video.end_seconds,
    }


def _run_pipeline(out: Path, table: Path, root: Path, recipe: Recipe) -> None:
    given = {
        "--dataset": "table", "--table": table, "--root": root, "--out": out,
        "--profile": recipe.profile, "--fps": recipe.fps, "--faces": recipe.faces,
        "--window": recipe.cut_seconds, "--workers": recipe.workers, "--executor": "local",
        "--max-error-rate": 1,
    }  # fmt: skip
    flags = [str(x) for name, value in given.items() if value is not None for x in (name, value)]
    log.info("decoding %s, profile %s", out.name, recipe.profile)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "shards", *flags], cwd=CHECKOUT, text=True, check=False,
        stdout=subprocess.PIPE, stderr=None if sys.stderr.isatty() else subprocess.PIPE,
    )  # fmt: skip
    if done.returncode in (0, INCOMPLETE) and (out / ERRORS).is_file():
        return
    said = (done.stderr or done.stdout).strip()[-1000:]
    kind = UsageError if done.returncode == UsageError.exit_code else TrainError
    raise kind(f"`python -m pipeline shards` ended with {done.returncode}: {said}")
