"""Held-out clips, measured every so many steps: what chooses `best`.

Middle windows and centre crops of another split, the model in evaluation mode; the method's own
losses and facts, averaged over batches and ranks, and every --knn measurements what neighbours
among the training clips say.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import nn

from train.augment import centre
from train.batch import Batch
from train.best import KNN, best_of
from train.config import PretrainConfig
from train.dist import Ranks
from train.knn import MAX_TRAINING_CLIPS, knn_accuracy, labelled_rows
from train.loader import ClipLoader
from train.mixture import Mixture, Source, open_mixture
from train.plan import Plan
from train.session import Progress, Run

log = logging.getLogger(__name__)


@dataclass
class HeldOut:
    """The held-out split of the mixture; inactive where --val-every is 0."""

    loader: ClipLoader | None
    every: int
    crop: int
    ranks: Ranks
    training: ClipLoader | None = None
    """The clips among which neighbours are looked for; None without --knn."""
    knn_every: int = 0
    is_last: bool = False

    @classmethod
    def of(
        cls, config: PretrainConfig[Any], sources: list[Source], mixture: Mixture, ranks: Ranks,
        workers: int,
    ) -> "HeldOut":  # fmt: skip
        """Open the split, with batches as large as in training where there are enough clips."""
        if not config.val_every:
            return cls(None, 0, config.model.crop, ranks)
        whole = [replace(source, clips=None, weight=1.0) for source in sources]
        held_out = open_mixture(whole, frames=config.model.frames, split=config.val_split)
        loaders = [
            ClipLoader(
                Plan(clips, 0, _batch_size(config, clips, ranks), ranks.world, ranks.rank),
                min(workers, 2),
                random_windows=False,
                guard=config.guard(),
            )
            for clips in (held_out, mixture)
        ]
        size = loaders[0].plan.batch_size * ranks.world
        log.info("held out: %d of %d clips of split %s every %d steps, %d at a time",
                 len(loaders[0]) * size, held_out.clips, config.val_split, config.val_every,
                 size)  # fmt: skip
        training = loaders[1] if config.knn else None
        return cls(loaders[0], config.val_every, config.model.crop, ranks, training, config.knn)

    def due(self, step: int, last_step: int) -> bool:
        """Whether to measure after this step; after the last one in any case."""
        self.is_last = step == last_step
        return self.loader is not None and (step % self.every == 0 or step == last_step)

    def improves(self, model: nn.Module, progress: Progress, run: Run) -> bool:
        """Measure, record, and say whether the model is the best so far, and by which signal."""
        facts = self.measure(model)
        if asks_neighbours := self._asks_neighbours(progress.step):
            facts[KNN] = self.neighbours(model)
        run.record({"step": progress.step, **{f"val_{name}": x for name, x in facts.items()}})
        log.info("held out: %s", " ".join(f"{name} {x:.3f}" for name, x in facts.items()))
        if self.knn_every and not asks_neighbours:
            return False  # comparable are only measurements with the same signals
        found = best_of(facts)
        is_best = found.is_better_than(progress.best)
        if is_best:
            log.info("best so far by %s", found)
            progress.best = found
        return is_best

    def neighbours(self, model: nn.Module) -> float:
        """Accuracy of kNN with frozen features: training clips answer for the held-out ones."""
        assert self.loader is not None
        assert self.training is not None
        training, plan = model.training, self.training.plan
        first = list(plan.mixture.first_instances().values())
        enough = -(-MAX_TRAINING_CLIPS // (plan.batch_size * plan.world))
        model.eval()
        rows = [
            labelled_rows(model, map(self._prepared, islice(loader.one_epoch(), enough)), first)
            for loader in (self.training, self.loader)
        ]
        model.train(training)
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
        training = model.training
        model.eval()
        with torch.no_grad():
            forward: Callable[[Batch], dict[str, torch.Tensor]] = model
            found = [
                {name: float(value) for name, value in forward(self._prepared(batch)).items()}
                for batch in self.loader.one_epoch()
            ]
        model.train(training)
        self.loader.guard.agree(self.ranks)
        everyone = [facts for rank in self.ranks.all_objects(found) for facts in rank]
        return {name: sum(f[name] for f in everyone) / len(everyone) for name in everyone[0]}

    def _prepared(self, batch: Batch) -> Batch:
        return centre(batch.to(self.ranks.device), self.crop)


def _batch_size(config: PretrainConfig[Any], mixture: Mixture, ranks: Ranks) -> int:
    """As in training, where there are enough clips."""
    return max(min(config.clips_per_batch, mixture.clips // ranks.world), 1)
