"""`python -m train predict`: what a fine-tuned model says of videos, second by second.

    python -m train eval --task esc50 --checkpoint runs/first        # keeps its model, then:
    python -m train predict my.mp4 song.wav --from runs/first/eval/esc50
    python -m train predict *.mp4 --from runs/first/eval/dfdc --out scores.csv
    python -m train predict my.mp4 --from runs/first/eval/grid_sentences      # reads lips

A video is decoded as the task's shards were (`python -m pipeline shards`, same profile) and scored
as the task scores its clips: `video` is the task's own mean over windows. Each second is the mean
of the windows that show it, which lie a second apart. Models of sentences give text. A task with
several folds has as many models: --round fold2 takes another than the first.

What the scores mean is what the task measured: look at result.json before you believe one.

Exit codes: 0 complete, 2 usage, 3 some videos could not be scored (told with their reasons).
"""

import csv
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import tyro

from train.apply.clips import Clip, Sums, clips_of, covering, places_of
from train.apply.videos import Made, Recipe, Video, existing, shards_of
from train.checkpoint import write_atomically
from train.config import Precision
from train.cores import limit_threads
from train.dist import choose_device
from train.errors import UsageError
from train.evaluation.classify import scored, window_logits
from train.evaluation.clips import require_members
from train.evaluation.config import EvalConfig
from train.evaluation.job import Job
from train.evaluation.kept import MODEL, Kept, load
from train.evaluation.labelled import LabelledSet
from train.evaluation.result import RESULT
from train.evaluation.task import Round
from train.evaluation.transcribe import read
from train.loader import default_workers
from train.tables import read_result
from train.tasks import task_named

log = logging.getLogger(__name__)

ENDINGS = (".json", ".csv")
COMPLETE, INCOMPLETE = 0, 3
SHOWN_CLASSES = 3
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PredictOptions:
    """Which videos, by which model."""

    videos: tyro.conf.Positional[tuple[str, ...]]
    """Files with what the task looks at: pictures, sound, or both."""
    model: Annotated[Path, tyro.conf.arg(name="from")]
    """RUN/eval/TASK of a fine-tuning, one of its rounds, or a model.pt."""
    round: str = ""
    """Which fold or split; empty is the first one that kept its model."""
    out: Path | None = None
    """FILE.json or FILE.csv with the scores of all classes."""
    precision: Precision = "auto"
    """bf16 autocast or fp32; auto is bf16 on a GPU."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    threads: int | None = None
    """Threads of torch on a CPU; None leaves torch's choice."""
    workers: int | None = None
    """Reading processes; None is the usable cores less one, 0 reads in the loop."""

    def __post_init__(self) -> None:
        """Ranges."""
        if not self.videos:
            raise UsageError("name videos: python -m train predict my.mp4 --from runs/first/eval/"
                             "TASK")  # fmt: skip
        if self.out is not None and self.out.suffix not in ENDINGS:
            raise UsageError(f"--out {self.out} ends with {self.out.suffix or 'nothing'}; expected "
                             f"a file {' or '.join(ENDINGS)}")  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What the model says of one video."""

    path: Path
    seconds: float
    """Its length."""
    has_sound: bool
    faceless: bool
    """The task looks at faces, and there is none in the whole video."""
    scores: list[float] | None = None
    """Of the classes, as the task averages them; None for text."""
    by_second: list[list[float]] = field(default_factory=list)
    """The same of each second; empty where the task does not guess, and for text."""
    text: str | None = None


@dataclass
class Outcome:
    """What came of it."""

    lines: list[str] = field(default_factory=list)
    exit_code: int = COMPLETE


def predict(options: PredictOptions) -> Outcome:
    """Score videos.

    Raises:
        UsageError: no such video or model, or the task is not known here.
        TrainError: the pipeline failed, or the model cannot be read.
    """
    limit_threads(options.threads)
    paths = existing(options.videos)
    file = model_of(options.model, options.round)
    kept = load(file)
    config = kept.shards
    recipe = Recipe(config["profile"], config["fps"], config["faces"], sound_alone=False)
    with shards_of([Video(path) for path in paths], recipe) as made:
        said = [one for labelled in made.sets for one in _said(options, kept, labelled, made)]
        failed = list(made.failed)
    if kept.settings.modality == "A":
        mute = [one for one in said if not one.has_sound]
        failed += [(one.path, "no_audio: the task listens, and there is no sound") for one in mute]
        said = [one for one in said if one.has_sound]
    said.sort(key=lambda one: paths.index(one.path))
    outcome = Outcome([f"{kept.task}, {kept.round} ({file})"])
    if kept.settings.tracks > 1:
        outcome.lines.append("only the first face of a video is scored here, not the second one")
    for one in said:
        outcome.lines += lines_of(one, kept)
    for path, why in failed:
        outcome.lines.append(f"{path}: not scored: {why}")
        outcome.exit_code = INCOMPLETE
    if options.out:
        write(options.out, kept, file, said, failed)
        outcome.lines.append(f"all scores: {options.out}")
    return outcome


def model_of(path: Path, wanted: str) -> Path:
    """The model that --from and --round name.

    Raises:
        UsageError: there is none.
    """
    if not path.exists():
        raise UsageError(f"there is no {path}; fine-tune first: python -m train eval --task TASK")
    if path.is_file() or (path / MODEL).is_file():
        return path if path.is_file() else path / MODEL
    if wanted:
        return path / wanted / MODEL
    found = _kept_models(path)
    if len(found) > 1:
        names = ", ".join(one.parent.name for one in found)
        log.info("%s keeps models of %s; taking %s (another: --round)", path, names,
                 found[0].parent.name)  # fmt: skip
    return found[0] if found else path / MODEL


def _kept_models(path: Path) -> list[Path]:
    """Of the result that stands there; folders of an earlier one may lie beside its rounds."""
    models = sorted(path.glob(f"*/{MODEL}"))
    if not (path / RESULT).is_file():  # not all rounds are done yet
        return models
    rounds = {one["name"] for one in read_result(path / RESULT)["rounds"]}
    return [one for one in models if one.parent.name in rounds]


# --- scoring ------------------------------------------------------------------------------------


def _said(options: PredictOptions, kept: Kept, labelled: LabelledSet, made: Made) -> list[Said]:
    """Of every clip of a set."""
    videos = made.video_of(labelled)
    clips = clips_of(labelled.shard_set, range(len(labelled.shard_set)))
    job = job_of(options, kept, labelled, clips)
    require_members(labelled.shard_set, job.view, kept.task)
    model = kept.model.to(job.device)
    if kept.output == "text":
        texts, faceless = read(job, model, job.test, job.settings.beam)
        return [
            Said(videos[clip.example.name].path, clip.example.frames / clip.fps, clip.has_sound,
                 none, text=text)
            for clip, text, none in zip(clips, texts, faceless, strict=True)
        ]  # fmt: skip
    scores, unseen = scored(job, model, job.test)
    seconds = by_second(job, model, clips)
    guesses = job.task.faceless != "unknown"
    return [
        Said(videos[clip.example.name].path, clip.example.frames / clip.fps, clip.has_sound,
             bool(unseen[number]), scores[number].tolist(),
             seconds[number] if guesses or not unseen[number] else [])
        for number, clip in enumerate(clips)
    ]  # fmt: skip


def job_of(
    options: PredictOptions, kept: Kept, labelled: LabelledSet, clips: Sequence[Clip]
) -> Job:
    """A round of the task that has nothing to learn from: its way of looking at other clips."""
    examples = [clip.example for clip in clips]
    workers = default_workers(1) if options.workers is None else options.workers
    nowhere = Path()  # nothing is written
    return Job(
        task=replace(task_named(kept.task), settings=kept.settings),
        config=EvalConfig(task=kept.task, precision=options.precision),
        round=Round(kept.round, ()), labelled=labelled, train=[], val=[], test=examples,
        classes=kept.classes, source=kept.encoders, train_pool=[], test_pool=[], folder=nowhere,
        frozen=nowhere, device=choose_device(options.device, 0), workers=workers,
    )  # fmt: skip


def by_second(job: Job, model: torch.nn.Module, clips: Sequence[Clip]) -> list[list[list[float]]]:
    """Class probabilities of every second of every clip: the mean of the windows that show it."""
    fps = clips[0].fps
    overlap = max(0.0, 1 - fps / job.window) if job.window else 0.0
    looks = covering(job.test, job.window, overlap, job.settings.crops)
    logits, owner, _ = window_logits(job, model, job.test, looks)
    shares = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    found = []
    for number, clip in enumerate(clips):
        sums = Sums(clip.example.frames, shares.shape[1:])
        for place in np.flatnonzero(owner == number):
            places = np.unique(places_of(looks[place], clip.example))
            sums.add(places, np.broadcast_to(shares[place], (len(places), shares.shape[1])))
        found.append(_means_of_seconds(sums.mean(), fps))
    return found


def _means_of_seconds(frames: Floats, fps: float) -> list[list[float]]:
    """(T, C) -> a row a second, of the frames whose middle lies in it."""
    second = np.floor((np.arange(len(frames)) + 0.5) / fps).astype(int)
    return [frames[second == one].mean(axis=0).tolist() for one in np.unique(second)]


# --- telling ------------------------------------------------------------------------------------


def lines_of(one: Said, kept: Kept) -> list[str]:
    """A readable table of one video."""
    remarks = [] if one.has_sound or not kept.settings.uses_sound else [
        "no sound: scored with silence"
    ]  # fmt: skip
    remarks += ["no face: not what the task looks at"] if one.faceless else []
    told = f" ({'; '.join(remarks)})" if remarks else ""
    head = f"{one.path}, {one.seconds:.1f} s{told}"
    if one.text is not None:
        return [head, f"  text      {one.text or '(nothing)'}"]
    assert one.scores is not None
    rows = [("video", one.scores)]
    rows += [(f"{start}-{min(start + 1, one.seconds):.4g} s", row)
             for start, row in enumerate(one.by_second)]  # fmt: skip
    return [head, *(f"  {name:<9} {_top(row, kept.classes)}" for name, row in rows)]


def _top(scores: Sequence[float], classes: Sequence[str]) -> str:
    """Two classes as they are, of more the likeliest."""
    order = range(len(scores)) if len(scores) <= 2 else np.argsort(scores)[::-1][:SHOWN_CLASSES]
    return "  ".join(f"{classes[place]} {scores[place]:.3f}" for place in order)


def write(
    out: Path, kept: Kept, model: Path, said: Sequence[Said], failed: Sequence[tuple[Path, str]]
) -> None:
    """All scores, as JSON or CSV by the ending."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        _write_csv(out, kept, said)
        return
    content = {
        "task": kept.task,
        "round": kept.round,
        "model": str(model),
        "classes": [] if kept.output == "text" else list(kept.classes),
        "videos": [_as_json(one, kept) for one in said],
        "not_scored": [{"path": str(path), "reason": why} for path, why in failed],
    }
    write_atomically(out, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _as_json(one: Said, kept: Kept) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "path": str(one.path),
        "seconds": round(one.seconds, 3),
        "has_sound": one.has_sound,
        "faceless": one.faceless,
    }
    if one.scores is None:
        return {**facts, "text": one.text}
    return {
        **facts,
        "said": kept.classes[int(np.argmax(one.scores))],
        "scores": dict(zip(kept.classes, one.scores, strict=True)),
        "by_second": [
            {"start_seconds": start, "scores": dict(zip(kept.classes, row, strict=True))}
            for start, row in enumerate(one.by_second)
        ],
    }


def _write_csv(out: Path, kept: Kept, said: Sequence[Said]) -> None:
    """A row for each video, whose start is empty, and for each of its seconds."""
    texts = kept.output == "text"
    columns = ["path", "start_seconds", "end_seconds", "has_sound", "faceless"]
    columns += ["text"] if texts else list(kept.classes)
    temporary = out.with_name(f".{out.name}.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for one in said:
            facts = (one.has_sound, one.faceless)
            rows = [("", f"{one.seconds:.3f}", [one.text] if texts else one.scores or [])]
            rows += [(f"{start}", f"{min(start + 1, one.seconds):.3f}", row)
                     for start, row in enumerate(one.by_second)]  # fmt: skip
            for start_seconds, end_seconds, values in rows:
                writer.writerow([one.path, start_seconds, end_seconds, *facts, *values])
    temporary.replace(out)
