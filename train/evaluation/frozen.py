"""Features of clips, computed once for a checkpoint, a shard set and a way of looking.

    FOLDER/HASH/part-00003.npz    one vector a feature and window, EXAMPLES_A_PART examples each
    FOLDER/HASH/view.json         what the hash is of

A part is whole or not there, so that extraction goes on where it was interrupted.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from train.checkpoint import write_atomically
from train.config import uses_bf16
from train.evaluation.clips import Look
from train.evaluation.encoders import Encoders, pooled, require_finite
from train.evaluation.job import Job
from train.evaluation.labelled import Example
from train.progress import with_progress

log = logging.getLogger(__name__)

EXAMPLES_A_PART = 500
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Frozen:
    """Vectors of windows; several belong to one example."""

    vectors: Floats
    """(windows, channels), the features side by side."""
    owner: Ints
    """(windows,): position of each one's example."""
    examples: int
    faceless: npt.NDArray[np.bool_]
    """(examples,): crops were asked for, and there was no face."""

    def mean(self) -> Floats:
        """(examples, channels): the mean over each example's windows."""
        return mean_by(self.vectors, self.owner, self.examples)


def mean_by(values: Floats, owner: Ints, count: int) -> Floats:
    """Rows averaged by owner: (windows, C) -> (count, C); each owner has a row at least."""
    order = np.argsort(owner, kind="stable")
    firsts = np.searchsorted(owner[order], np.arange(count))
    sums = np.add.reduceat(values[order].astype(np.float64), firsts, axis=0)
    return (sums / np.bincount(owner, minlength=count)[:, None]).astype(np.float32)


def train_features(job: Job) -> Frozen:
    """Of the job's training examples, as many windows as frozen protocols learn from."""
    pool = joined(job.train_pool, job.test_pool) if _alike(job) else job.train_pool
    return _of_pool(job, pool, job.train, job.settings.train_clips)


def test_features(job: Job, examples: list[Example]) -> Frozen:
    """Of examples as the task scores them."""
    pool = joined(job.train_pool, job.test_pool) if _alike(job) else job.test_pool
    return _of_pool(job, pool, examples, job.settings.clips if _alike(job) else None)


def _alike(job: Job) -> bool:
    """Whether training and test examples are seen alike, so that they share a cache."""
    return job.settings.train_clips == job.settings.clips and job.settings.crops == 1


def joined(first: list[Example], second: list[Example]) -> list[Example]:
    """Each once, by name."""
    known = {example.name: example for example in (*first, *second)}
    return [known[name] for name in sorted(known)]


def _of_pool(job: Job, pool: list[Example], wanted: list[Example], clips: int | None) -> Frozen:
    """The features of some examples of a pool, all of which is cached."""
    whole = frozen_features(job, pool, clips)
    place = {example.name: number for number, example in enumerate(pool)}
    chosen = np.array([place[example.name] for example in wanted], np.int64)
    order = np.argsort(whole.owner, kind="stable")
    firsts = np.searchsorted(whole.owner[order], [chosen, chosen + 1])
    rows = np.concatenate([order[a:b] for a, b in firsts.T])
    owner = np.repeat(np.arange(len(wanted)), firsts[1] - firsts[0])
    return Frozen(whole.vectors[rows], owner, len(wanted), whole.faceless[chosen])


def frozen_features(job: Job, examples: list[Example], clips: int | None = None) -> Frozen:
    """The features of examples, from the cache or computed now.

    Args:
        job: with the encoders and the settings.
        examples: of the job's shard set.
        clips: windows an example, centre crop; None is as the task scores.

    Raises:
        TrainError: a feature is not finite.
    """
    names = list(job.source.wanted(job.settings))
    every = list(job.source.wanted(replace(job.settings, features="both")))
    folder = job.frozen / hash_of(job, examples, clips)
    missing = [n for n in range(_parts(examples)) if not _holds(_part(folder, n), names)]
    if missing:  # of both paths, whichever is asked for: other --features need no second pass
        _extract(job, examples, clips, folder, missing, every)
    parts = [np.load(_part(folder, number)) for number in range(_parts(examples))]
    vectors = np.concatenate(
        [np.concatenate([part[name] for part in parts]) for name in names], axis=1
    )
    faceless = np.zeros(len(examples), bool)
    owner = np.concatenate([part["owner"] for part in parts])
    faceless[owner[np.concatenate([part["faceless"] for part in parts])]] = True
    return Frozen(vectors, owner, len(examples), faceless)


def _parts(examples: Sequence[Example]) -> int:
    return -(-len(examples) // EXAMPLES_A_PART)


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.npz"


def _holds(path: Path, names: Sequence[str]) -> bool:
    """Whether a part is there with these features."""
    if not path.is_file():
        return False
    with np.load(path) as part:
        return set(names) <= set(part.files)


def hash_of(job: Job, examples: Sequence[Example], clips: int | None) -> str:
    """Changes with whatever the vectors depend on, but not with the program's version."""
    view = view_of(job, examples, clips)
    return hashlib.sha256(json.dumps(view, sort_keys=True).encode()).hexdigest()[:16]


def view_of(job: Job, examples: Sequence[Example], clips: int | None) -> dict[str, Any]:
    """What the vectors depend on."""
    settings = job.settings
    origin = job.source.origin
    return {
        "checkpoint": origin["sha256"] if origin else f"scratch-{job.config.seed}",
        "method": job.source.method,
        "preset": job.source.preset,
        "shards": job.labelled.index_sha256,
        "pictures": settings.pictures,
        "modality": settings.modality,
        "pooling": settings.pooling,
        "layer": settings.layer,
        "cells": [*settings.cells, settings.cell_pool],
        "window": job.window,
        "clips": settings.clips if clips is None else clips,
        "crops": settings.crops if clips is None else 1,
        "examples": hashlib.sha256(repr(list(examples)).encode()).hexdigest(),
        "bf16": uses_bf16(job.config.precision, job.device),
    }


def _extract(
    job: Job, examples: list[Example], clips: int | None, folder: Path, missing: list[int],
    names: list[str],
) -> None:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    encoders = job.encoders()
    encoders.module.eval()
    log.info("features of %d examples (kept in %s)", len(examples), folder)
    for number in with_progress(missing, "features", "parts"):
        first = number * EXAMPLES_A_PART
        part = examples[first : first + EXAMPLES_A_PART]
        found = features_of(job, encoders, part, job.scored(part, clips), names)
        found["owner"] += first
        # Two evaluations of a run may need the same part at once.
        temporary = folder / f"part-{number:05d}.{os.getpid()}.tmp.npz"
        np.savez(temporary, **found)  # type: ignore[arg-type]
        temporary.replace(_part(folder, number))
    view = view_of(job, examples, clips)
    write_atomically(folder / "view.json", json.dumps(view, indent=1) + "\n")


@torch.no_grad()
def features_of(
    job: Job, encoders: Encoders, examples: list[Example], looks: list[Look], names: list[str]
) -> dict[str, npt.NDArray[Any]]:
    """Pooled features of windows by name, and owner and faceless of each window."""
    rows: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in (*names, "owner", "faceless")}
    for raw in job.read(examples, job.in_batches(looks)):
        batch = raw.centred(encoders.crop)
        with job.autocast():
            maps = encoders.looked_at(batch.video, batch.sound, job.settings)
            vectors = pooled(maps, names, job.settings)
        for name in names:
            rows[name].append(vectors[name].cpu().numpy())
        rows["owner"].append(batch.examples.numpy())
        rows["faceless"].append(batch.faceless.numpy())
    found = {name: np.concatenate(parts) for name, parts in rows.items()}
    require_finite({name: found[name] for name in names})
    return found
