"""Where numbers go besides metrics.jsonl: TensorBoard's event files, and W&B if asked for.

    tensorboard --logdir runs                                          # all runs, step by step
    python -m train pretrain --wandb my-project                        # needs `pip install wandb`
    WANDB_MODE=offline python -m train pretrain --wandb my-project     # `wandb sync` sends it later

metrics.jsonl is the record; these are views of it, and a run does not depend on them.
"""

import logging
import time
import uuid
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from train.checkpoint import write_atomically
from train.errors import UsageError

log = logging.getLogger(__name__)

BOARD_FOLDER, WANDB_ID = "tensorboard", "wandb-id"


class Tracker(Protocol):
    """Takes the numbers of a step."""

    def record(self, step: int, numbers: dict[str, float]) -> None:
        """Note them."""

    def close(self) -> None:
        """Write what is left."""


def open_trackers(folder: Path, config: dict[str, Any], step: int) -> list[Tracker]:
    """The trackers of a run that goes on after `step`.

    Raises:
        UsageError: --wandb, and wandb is not installed.
    """
    trackers: list[Tracker] = []
    if config.get("wandb"):  # first: it may refuse
        trackers.append(WeightsAndBiases(folder, config))
    if find_spec("tensorboard"):
        trackers.append(TensorBoard(folder, step))
    else:
        log.warning("tensorboard is not installed, so its files are not written; metrics.jsonl is "
                    "complete without them (`make setup`, or pip install tensorboard)")  # fmt: skip
    return trackers


class TensorBoard:
    """RUN/tensorboard, for `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, step: int) -> None:
        """Events after `step` are hidden from now on: those steps are done again."""
        from torch.utils.tensorboard import SummaryWriter

        writer: Any = SummaryWriter
        _wait_for_a_later_name(folder / BOARD_FOLDER)
        self._writer = writer(str(folder / BOARD_FOLDER), purge_step=step + 1)

    def record(self, step: int, numbers: dict[str, float]) -> None:
        """One scalar each."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _wait_for_a_later_name(folder: Path) -> None:
    """TensorBoard reads files in the order of their names, which begin with the second.

    Within one second the names' ends, a counter without leading zeros, may stand in another order.
    """
    seconds = {path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")}
    while f"{int(time.time()):010d}" in seconds:
        time.sleep(0.02)


class WeightsAndBiases:
    """One W&B run for a folder, however often it is resumed."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Open, or go on with, the W&B run whose id is in the folder."""
        if not find_spec("wandb"):
            raise UsageError(
                f"--wandb {config['wandb']}: the package wandb is not installed; run `pip install "
                "wandb`, or leave --wandb out (metrics.jsonl and TensorBoard are written anyway)"
            )
        wandb: Any = import_module("wandb")
        self._run = wandb.init(
            project=config["wandb"], name=folder.name, id=_wandb_id(folder), resume="allow",
            dir=str(folder), config=config,
        )  # fmt: skip

    def record(self, step: int, numbers: dict[str, float]) -> None:
        """One row; rows of a step given twice are joined."""
        self._run.log(numbers, step=step)

    def close(self) -> None:
        """Wait until all is sent, or on disk."""
        self._run.finish()


def _wandb_id(folder: Path) -> str:
    """Drawn once a folder, so that a folder made anew is a new run."""
    path = folder / WANDB_ID
    if not path.is_file():
        write_atomically(path, uuid.uuid4().hex[:12] + "\n")
    return path.read_text().strip()
