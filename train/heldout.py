"""Held-out clips, measured every so many steps: what chooses `best`, and what was learnt.

Middle windows and centre crops of another split, the model in evaluation mode and in the precision
of training; the method's own losses and facts, averaged over batches and ranks. A method with
`with_controls` is asked for its control signals too: the same numbers for clips with another clip's
sound (`_swapped`), with their own sound out of time (`_shifted`), and at chance (`_chance`). What a
loss loses with foreign sound, the gap, is what was learnt from this clip's sound; a model that
knows when a sound is heard loses it where the sound is shifted. Every --knn measurements, training
clips that look alike are asked for the label as well.

Which model is the best depends on how many clips are compared at a time, and a run may go on with
another batch size or on other ranks. What was the best so far is then measured again, as now.

Whoever is told to stop has seconds, so a measurement is given up between two batches; the run is
saved, and measures first when it goes on.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import nn

from train import checkpoint
from train.augment import centre
from train.batch import Batch
from train.best import KNN, Best, best_of
from train.config import PretrainConfig
from train.cuts import reads_of
from train.dist import Ranks
from train.errors import TrainError, UsageError
from train.facts import CONTROLS, is_control
from train.knn import MAX_TRAINING_CLIPS, knn_accuracy, labelled_rows
from train.loader import ClipLoader
from train.mixture import Mixture, Source, open_mixture
from train.overlap import refuse_overlap
from train.plan import Plan
from train.session import Progress, Run, Stop

log = logging.getLogger(__name__)

EVERY = 500
"""Steps between measurements where --val-every does not say."""
SUSPICIOUS_SHARE, SUSPICIOUS_FALL = 0.5, 0.1
"""A loss is suspected when it is lower than chance by this much (nats) and, with another clip's
sound, still by this share of it."""
ALWAYS_TOLD = ("loss", KNN)
"""Facts of the held-out line that have no controls; the others are in metrics.jsonl."""


class _StoppedError(Exception):
    """A rank was told to stop in the middle of a measurement."""


@dataclass
class HeldOut:
    """The held-out split of the mixture; inactive where --val-every is 0."""

    loader: ClipLoader | None
    every: int
    crop: int
    ranks: Ranks
    batches: int = 0
    """How many are measured."""
    among: str = ""
    """Which clips, and how many at a time: see `Best.among`."""
    bf16: bool = False
    """Under autocast, as in training."""
    training: ClipLoader | None = None
    """The clips among which neighbours are looked for; None without --knn."""
    knn_every: int = 0
    stop: Stop = field(default_factory=Stop)
    is_last: bool = False

    @classmethod
    def of(
        cls, config: PretrainConfig[Any], sources: list[Source], mixture: Mixture, ranks: Ranks,
        workers: int, stop: Stop,
    ) -> "HeldOut":  # fmt: skip
        """Open the split, with batches as large as in training where there are enough clips.

        Raises:
            UsageError: the split is asked for, by --val-every or --knn, and the shards lack it; or
                clips of it are trained on.
        """
        if config.knn and reads_of(config.model).cut is not None:
            raise UsageError(
                f"--knn compares whole windows, and {config.method} looks at clips in cuts of its "
                "own; leave --knn out, and afterwards: make eval TASK=classify SHARDS=... "
                'ARGS="--protocol knn"'
            )
        held_out = _held_out_clips(config, sources)
        if held_out is None:
            return cls(None, 0, config.model.crop, ranks)
        refuse_overlap(mixture, held_out, config.allow_overlap)
        loader, training = (
            _middle_windows(config, clips, ranks, min(workers, 2))
            for clips in (held_out, mixture.once())
        )
        at_once = loader.plan.batch_size * ranks.world
        batches = min(len(loader), -(-config.val_clips // at_once))
        every = config.val_every or EVERY
        clips = f"{batches * at_once} of {held_out.clips} clips of split {config.val_split}"
        clips += f", {held_out.view}" if held_out.view else ""
        log.info("held out: %s every %d steps, %d at a time%s", clips, every, at_once,
                 _left_out(held_out.clips, batches, at_once))  # fmt: skip
        return cls(
            loader, every, config.model.crop, ranks, batches,
            f"{clips}, {loader.plan.batch_size} at a time on each of {ranks.world} ranks",
            config.uses_bf16(ranks.device), training if config.knn else None, config.knn,
            stop,
        )  # fmt: skip

    def due(self, step: int, last_step: int) -> bool:
        """Whether to measure after this step; after the last one in any case."""
        self.is_last = step == last_step
        return self.loader is not None and (step % self.every == 0 or step == last_step)

    def improves(self, model: nn.Module, progress: Progress, run: Run) -> bool:
        """Measure, record, and say whether the model is the best so far, and by which signal.

        Where a rank is told to stop, nothing is recorded, and `progress.unmeasured` says so.
        """
        asks_neighbours = self._asks_neighbours(progress.step)
        try:
            facts = self._facts(model, asks_neighbours)
            found = self._comparable(facts, asks_neighbours)
            before = progress.best
            if found and before and not found.compares_with(before):
                before = self._again(model, run, asks_neighbours)
        except _StoppedError:
            progress.unmeasured = True
            return False
        progress.unmeasured, progress.best = False, before
        run.record({"step": progress.step, **{f"val_{name}": x for name, x in facts.items()}})
        log.info("held out: %s", told(facts))
        for sentence in suspicions(facts):
            log.warning("held out: %s", sentence)
        is_best = found is not None and found.is_better_than(before)
        if is_best:
            log.info("best so far by %s", found)
            progress.best = found
        return is_best

    def _comparable(self, facts: dict[str, float], asks_neighbours: bool) -> Best | None:
        """The measurement, if it has the signals by which the best one is chosen."""
        if self.knn_every and not asks_neighbours:
            return None
        return best_of(facts, self.among)

    def _facts(self, model: nn.Module, asks_neighbours: bool) -> dict[str, float]:
        with self._as_saved(model):
            facts = self.measure(model)
            return {**facts, KNN: self.neighbours(model)} if asks_neighbours else facts

    @contextmanager
    def _as_saved(self, model: nn.Module) -> Iterator[None]:
        """All ranks with the first one's buffers, which are those that checkpoints hold.

        BatchNorm's running statistics are each rank's own: otherwise several models would be
        measured, of which all but one are lost when the run stops.
        """
        own = [buffer.clone() for buffer in model.buffers()] if self.ranks.world > 1 else []
        for buffer in model.buffers():
            self.ranks.take_from_first(buffer)
        try:
            yield
        finally:
            for buffer, before in zip(model.buffers(), own, strict=False):
                buffer.copy_(before)

    def _again(self, model: nn.Module, run: Run, asks_neighbours: bool) -> Best | None:
        """The best model so far, measured as it is done now; None where it cannot be read."""
        log.info("held out: another number of clips or another signal than before; the best so far "
                 "is measured again")  # fmt: skip
        try:
            weights = checkpoint.best(run.checkpoints)["model"]
        except TrainError as error:
            weights = None
            log.warning("held out: `best` begins anew: %s", error)
        if self.ranks.any(weights is None):
            return None
        now = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(weights)
        try:
            facts = self._facts(model, asks_neighbours)
        finally:
            model.load_state_dict(now)
        return best_of(facts, self.among)

    def neighbours(self, model: nn.Module) -> float:
        """Accuracy of kNN with frozen features: training clips answer for the held-out ones."""
        assert self.loader is not None
        assert self.training is not None
        plan = self.training.plan
        first = list(plan.mixture.first_instances().values())
        enough = -(-MAX_TRAINING_CLIPS // (plan.batch_size * plan.world))
        rows = []
        for loader, count in ((self.training, enough), (self.loader, self.batches)):
            with self._evaluating(model), closing(loader.one_epoch()) as batches:
                rows.append(labelled_rows(model, self._some(batches, count), first))
        everyone = self.ranks.all_objects(rows)
        known, asked = ([row for ranks in everyone for row in ranks[i]] for i in (0, 1))
        return knn_accuracy(known, asked)

    def _asks_neighbours(self, step: int) -> bool:
        """Every --knn measurements, and at the last step."""
        if self.training is None:
            return False
        return self.is_last or step % (self.every * self.knn_every) == 0

    def measure(self, model: nn.Module) -> dict[str, float]:
        """The method's losses and facts on the held-out clips."""
        assert self.loader is not None
        with self._evaluating(model), closing(self.loader.one_epoch()) as batches:
            forward: Callable[[Batch], dict[str, torch.Tensor]]
            forward = getattr(model, "with_controls", model)
            found = [
                {name: float(value) for name, value in forward(batch).items()}
                for batch in self._some(batches, self.batches)
            ]
        self.loader.guard.agree(self.ranks)
        everyone = [facts for rank in self.ranks.all_objects(found) for facts in rank]
        return {name: sum(f[name] for f in everyone) / len(everyone) for name in everyone[0]}

    @contextmanager
    def _evaluating(self, model: nn.Module) -> Iterator[None]:
        """In evaluation mode and the precision of training, without gradients."""
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), torch.autocast(self.ranks.device.type, torch.bfloat16, self.bf16):
                yield
        finally:
            model.train(training)

    def _some(self, batches: Iterator[Batch], count: int) -> Iterator[Batch]:
        """The first of them, on the device and cut out.

        Raises:
            _StoppedError: a rank was told to stop.
        """
        for batch in islice(batches, count):
            if self.ranks.any(self.stop.wanted):
                raise _StoppedError
            yield centre(batch.to(self.ranks.device), self.crop)


def _held_out_clips(config: PretrainConfig[Any], sources: list[Source]) -> Mixture | None:
    """All clips of the split; None where nobody asked for it and there is none, or for 0 steps."""
    if config.val_every == 0:
        return None
    whole = [replace(source, clips=None, weight=1.0) for source in sources]
    try:
        return open_mixture(whole, reads=config.reads, split=config.val_split, view=config.view())
    except UsageError as error:
        if config.val_every is not None or config.knn:
            raise
        log.info("no held-out measurement, so `best` is never chosen: %s", error)
        return None


def _middle_windows(
    config: PretrainConfig[Any], clips: Mixture, ranks: Ranks, workers: int
) -> ClipLoader:
    """The same windows each time, in batches as in training where there are enough clips."""
    size = max(min(config.clips_per_batch, clips.clips // ranks.world), 1)
    plan = Plan(clips, 0, size, ranks.world, ranks.rank)
    return ClipLoader(plan, workers, random_windows=False, guard=config.guard())


def _left_out(clips: int, batches: int, at_once: int) -> str:
    """The clips that are not measured, and why; empty where all are."""
    if clips - batches * at_once >= at_once:
        return " (as many as --val-clips asks for)"
    rest = clips - batches * at_once
    return f"; {rest} left out, which fill no batch" if rest else ""


def told(facts: dict[str, float]) -> str:
    """Facts for people, those that have controls with them; all where none has.

    Such as `loss_l 2.10 (swapped 3.39, gap 1.29, chance 3.43)`.
    """
    words = []
    controlled = any(map(is_control, facts))
    for name, value in facts.items():
        has_some = any(name + end in facts for end in CONTROLS)
        if is_control(name) or (controlled and not has_some and name not in ALWAYS_TOLD):
            continue
        controls = [(end, facts[name + end]) for end in CONTROLS if name + end in facts]
        beside = ", ".join(f"{end.removeprefix('_')} {number:.2f}" for end, number in controls)
        words.append(f"{name} {value:.2f}" + (f" ({beside})" if beside else ""))
    return ", ".join(words)


def suspicions(facts: dict[str, float]) -> list[str]:
    """A sentence for what is not finite, and for each loss that falls without the right sound."""
    found = []
    if broken := [name for name, value in facts.items() if not math.isfinite(value)]:
        found.append(
            f"{', '.join(broken)} not finite; recorded as null, and this model is not chosen as "
            "the best where that is the loss or a signal that chooses. Weights or BatchNorm's "
            "running statistics may have blown up: look at earlier steps, try a smaller --lr, a "
            "--warmup-steps, --clip-norm 1 or --precision fp32"
        )
    for name in (name.removesuffix("_chance") for name in facts if name.endswith("_chance")):
        if not name.startswith("loss") or f"{name}_swapped" not in facts:
            continue
        right, swapped, chance = (facts[name + end] for end in ("", "_swapped", "_chance"))
        fall, fall_swapped = chance - right, chance - swapped
        if fall > SUSPICIOUS_FALL and fall_swapped > SUSPICIOUS_SHARE * fall:
            found.append(
                f"{name} is {fall:.2f} below chance, and {fall_swapped:.2f} below it with another "
                "clip's sound too: most of it needs no sound of this clip. Either the networks "
                "tell the place in the window (see --model.temporal-padding), or all clips share a "
                "rhythm, as GRID's sentences do; only the gap counts as learnt synchrony"
            )
    return found
