"""Reading processes: how they start, how they end, and what is said when one dies.

A whole job gets SIGTERM, and only the loop may stop, so readers ignore it. That is also how torch
and Python would end a reader that hangs (on a server, say) when the loop is over; the process would
wait for it for ever. So whoever reads ends its readers, by force where they do not end themselves.
"""

import math
import shutil
import signal
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from train.errors import TooLargeError

SHARED_MEMORY = "/dev/shm"
DIED = "DataLoader worker"
"""How torch's sentences about a dead reader begin; it may interrupt the loop anywhere."""


def start_reader(_number: int) -> None:
    """Leave signals to the main process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def items_of(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """What the readers give; they end with this generator, also where one has failed."""
    iterator = iter(loader)
    try:
        yield from iterator
    finally:
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()
            for reader in iterator._workers:
                reader.kill()


def death_line(error: RuntimeError) -> str:
    """What to tell a person about a dead reader; empty for any other error."""
    if not str(error).startswith(DIED):
        return ""
    said = str(error).partition(". ")[0]
    return (
        f"a reading process died ({said}). One that is killed has mostly met the end of memory, of "
        f"the machine, the job or {SHARED_MEMORY}: fewer --workers need less. The same command "
        "goes on from the last checkpoint"
    )


def empty_bytes(*shape: int) -> Tensor:
    """An empty uint8 tensor; in a reader, in the memory it shares with the main process.

    Decoding into shared memory saves writing, and the kernel clearing, every batch a second time
    on its way out of the reader. torch's own collate function does the same.

    Raises:
        TooLargeError: there is no more of it.
    """
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    count = math.prod(shape)
    try:
        shared = torch.UntypedStorage._new_shared(count)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        total = shutil.disk_usage(SHARED_MEMORY).total
        raise TooLargeError(
            f"no shared memory for the {count / 1e6:.1f} MB of a batch: {error}. Readers hand over "
            f"batches, some ahead, in {SHARED_MEMORY}, which has {total / 1e6:.0f} MB here; "
            "containers get more by `--shm-size=8g`. Or give fewer --workers, or --workers 0"
        ) from error
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)
