"""Held-out clips, measured every so many steps: what chooses `best`, and what was learnt.

Middle windows and centre crops of another split, the model in evaluation mode; the method's own
losses and facts, averaged over batches and ranks. A method with `with_controls` is asked for its
control signals too: the same numbers for clips with another clip's sound (`_swapped`), and at
chance (`_chance`). A loss that stays low with foreign sound was not learnt from the sound.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from train.augment import centre
from train.batch import Batch
from train.config import PretrainConfig
from train.dist import Ranks
from train.loader import ClipLoader
from train.mixture import Source, open_mixture
from train.plan import Plan
from train.session import Progress, Run

log = logging.getLogger(__name__)

CONTROLS = ("_swapped", "_gap", "_chance")
"""Endings of a fact's control signals, see `train.methods`."""


@dataclass
class HeldOut:
    """The held-out split of the mixture; inactive where --val-every is 0."""

    loader: ClipLoader | None
    every: int
    crop: int
    ranks: Ranks

    @classmethod
    def of(
        cls, config: PretrainConfig[Any], sources: list[Source], ranks: Ranks, workers: int
    ) -> "HeldOut":
        """Open the split, with batches as large as in training where there are enough clips."""
        if not config.val_every:
            return cls(None, 0, config.model.crop, ranks)
        whole = [replace(source, clips=None, weight=1.0) for source in sources]
        mixture = open_mixture(whole, frames=config.model.frames, split=config.val_split)
        size = max(min(config.clips_per_batch, mixture.clips // ranks.world), 1)
        plan = Plan(mixture, 0, size, ranks.world, ranks.rank)
        loader = ClipLoader(plan, min(workers, 2), random_windows=False)
        return cls(loader, config.val_every, config.model.crop, ranks)

    def due(self, step: int, last_step: int) -> bool:
        """Whether to measure after this step; after the last one in any case."""
        return self.loader is not None and (step % self.every == 0 or step == last_step)

    def improves(self, model: nn.Module, progress: Progress, run: Run) -> bool:
        """Measure, record, and say whether the loss is the smallest so far."""
        facts = self.measure(model)
        run.record({"step": progress.step, **{f"val_{name}": x for name, x in facts.items()}})
        is_best = facts["loss"] < progress.best
        progress.best = min(progress.best, facts["loss"])
        log.info("held out: %s%s", told(facts), " (best)" if is_best else "")
        return is_best

    def measure(self, model: nn.Module) -> dict[str, float]:
        """The method's losses and facts on the held-out clips."""
        assert self.loader is not None
        training = model.training
        model.eval()
        with torch.no_grad():
            forward: Callable[[Batch], dict[str, torch.Tensor]]
            forward = getattr(model, "with_controls", model)
            found = [
                {name: float(value) for name, value in forward(self._prepared(batch)).items()}
                for batch in self.loader.one_epoch()
            ]
        model.train(training)
        everyone = [facts for rank in self.ranks.all_objects(found) for facts in rank]
        return {name: sum(f[name] for f in everyone) / len(everyone) for name in everyone[0]}

    def _prepared(self, batch: Batch) -> Batch:
        return centre(batch.to(self.ranks.device), self.crop)


def told(facts: dict[str, float]) -> str:
    """Facts for people, each with its controls behind it.

    Such as `loss_l 2.104 (swapped 3.391, gap 1.287, chance 3.434)`.
    """
    words = []
    for name, value in facts.items():
        if name.endswith(CONTROLS):
            continue
        controls = [(end, facts[name + end]) for end in CONTROLS if name + end in facts]
        beside = ", ".join(f"{end.removeprefix('_')} {number:.3f}" for end, number in controls)
        words.append(f"{name} {value:.3f}" + (f" ({beside})" if beside else ""))
    return " ".join(words)
