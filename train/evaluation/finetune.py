"""The loop that fine-tunes: AdamW, warm-up, cosine, the epoch that validates best; resumable.

An epoch ends with its state written to ROUND/training.pt, so that a killed evaluation goes on with
the next one; the file goes when the round is scored.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from train.config import uses_bf16
from train.errors import TrainError
from train.evaluation.config import EvalConfig
from train.plan import seed_of
from train.schedule import learning_rates

log = logging.getLogger(__name__)

STATE = "training.pt"
CLIP_NORM = 1.0


Item_co = TypeVar("Item_co", covariant=True)
Item = TypeVar("Item")


class Batches(Sized, Iterable[Item_co], Protocol[Item_co]):
    """Batches whose number is known."""


@runtime_checkable
class HasEncoders(Protocol):
    """A network on top of encoders."""

    module: nn.Module


def fit(
    model: Any,
    config: EvalConfig,
    epochs: int,
    epoch_batches: Callable[[int], Batches[Item]],
    loss: Callable[[Item, int], Tensor],
    validate: Callable[[], float] | None,
    folder: Path,
    device: torch.device,
) -> list[dict[str, float]]:
    """Train a model in place and leave it at its best epoch.

    Args:
        model: nn.Module with `groups`.
        config: rates and seed.
        epochs: length of the schedule.
        epoch_batches: the batches of an epoch, the same number in each.
        loss: of a batch with its number in training.
        validate: a score of the model, higher is better; None takes the last epoch.
        folder: for the state.
        device: where the model is.

    Returns:
        epoch, loss and score of each epoch.

    Raises:
        TrainError: the loss is not finite.
    """
    optimizer = torch.optim.AdamW(
        model.groups(config.lr_head, config.encoder_lr), weight_decay=config.weight_decay
    )
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    state = _resumed(folder / STATE, model, optimizer)
    for epoch in range(len(state["history"]), epochs):
        torch.manual_seed(seed_of(config.seed, "dropout", epoch) >> 1)
        batches = epoch_batches(epoch)
        total = epochs * len(batches)
        factors = learning_rates(total, 1.0, round(config.warmup * total))
        mean = _epoch(model, optimizer, config, batches, loss, epoch, factors, device)
        facts = {"epoch": epoch + 1, "loss": mean}
        if validate is not None:
            model.eval()
            facts["score"] = validate()
        state["history"].append(facts)
        if validate is None or facts["score"] > state["best_score"]:
            state["best_score"] = facts.get("score", 0.0)
            state["best"] = {name: tensor.cpu().clone() for name, tensor in
                             model.state_dict().items()}  # fmt: skip
        _save(folder / STATE, model, optimizer, state)
        log.info("epoch %d of %d: loss %.3f%s", epoch + 1, epochs, mean,
                 f", validation {facts['score']:.3f}" if "score" in facts else "")  # fmt: skip
    model.load_state_dict(state["best"])
    model.eval()
    history: list[dict[str, float]] = state["history"]
    return history


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: EvalConfig,
    batches: Batches[Item],
    loss: Callable[[Item, int], Tensor],
    epoch: int,
    factors: npt.NDArray[np.float64],
    device: torch.device,
) -> float:
    """One pass with rates of peak x factors; the mean loss."""
    model.train()
    if config.encoder_lr == 0 and isinstance(model, HasEncoders):
        model.module.eval()  # or BatchNorm would go on learning
    losses = []
    bar = tqdm(batches, desc=f"epoch {epoch + 1}", leave=False, disable=None)
    for number, batch in enumerate(bar):
        step = epoch * len(batches) + number
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * float(factors[step])
        with torch.autocast(device.type, torch.bfloat16, uses_bf16(config.precision, device)):
            value = loss(batch, step)
        if not torch.isfinite(value):
            raise TrainError(
                f"the loss is {float(value)} in step {step + 1}, epoch {epoch + 1}; try a smaller "
                f"--lr-head (now {config.lr_head}) or --lr-encoder (now {config.encoder_lr})"
            )
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        losses.append(float(value.detach()))
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return sum(losses) / len(losses)


def _resumed(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state after the last finished epoch, or that before the first."""
    if not path.is_file():
        return {"history": [], "best_score": -math.inf, "best": None}
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(saved.pop("model"))
    optimizer.load_state_dict(saved.pop("optimizer"))
    log.info("going on after epoch %d", len(saved["history"]))
    return saved


def _save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(
        {**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, temporary
    )
    temporary.replace(path)
