"""Methods that are wrong in one way each, which `train check` must find. Known as broken_NAME."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.train.toy import Toy, ToyConfig
from train.methods import METHODS, MethodEntry

CONFIG = ToyConfig(dropout=0.0)


class Unused(Toy):
    """A layer nobody asks."""

    def __init__(self, config: ToyConfig, gather: Any = None) -> None:
        super().__init__(config, gather)
        self.forgotten = nn.Linear(2, 2)


class NotFinite(Toy):
    """The square root's slope at 0 is infinite; the loss itself is fine."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        facts = super().forward(batch)
        return {**facts, "loss": facts["loss"] + (self.mel.bias * 0).sum().sqrt()}


class Stuck(Toy):
    """Gradients arrive, but do not tell where the loss falls."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        facts = super().forward(batch)
        loss = facts["loss"]
        return {**facts, "loss": loss.detach() + 1e-9 * (loss - loss.detach())}


class Local(Toy):
    """The rank's own clips only, where all were promised."""

    def __init__(self, config: ToyConfig, gather: Any = None) -> None:
        super().__init__(config, None)


class Summed(Toy):
    """A sum over clips: each rank's is half of the whole one's, or twice the mean."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        facts = super().forward(batch)
        return {**facts, "loss": facts["loss"] * len(batch)}


class HalfGradient(Toy):
    """The same losses, but no gradient comes back from other ranks' losses."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        gather = self.gather
        self.gather = lambda own: _with_own(gather(own).detach(), own)
        facts = super().forward(batch)
        self.gather = gather
        return facts


def _with_own(everyone: Tensor, own: Tensor) -> Tensor:
    """The rows of this rank with their gradient, the others' without: a usual mistake."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    before, after = everyone[: rank * len(own)], everyone[(rank + 1) * len(own) :]
    return torch.cat([before, own, after])


class Forgetful(Toy):
    """State that no checkpoint holds."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        facts = super().forward(batch)
        return {**facts, "loss": facts["loss"] * (1 + 0.1 * self.calls)}


class Raises(Toy):
    """An error of its own."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        raise ValueError("the seventh cell is missing")


class Bare(Toy):
    """A tensor instead of a dict."""

    def forward(self, batch: Any) -> Any:
        return super().forward(batch)["loss"]


class Holding(Toy):
    """A fact that holds on to its graph."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        facts = super().forward(batch)
        return {**facts, "twice": 2 * facts["loss"]}


@dataclass(frozen=True)
class LocalConfig(ToyConfig):
    """Says that ranks are apart by design."""

    gather: bool = False


KINDS = [Unused, NotFinite, Stuck, Local, HalfGradient, Summed, Forgetful, Raises, Bare, Holding]
METHODS |= {f"broken_{kind.__name__.lower()}": MethodEntry(ToyConfig, kind, {"toy": CONFIG})
            for kind in KINDS}  # fmt: skip
METHODS["apart"] = MethodEntry(LocalConfig, Local, {"toy": LocalConfig(dropout=0.0)})
