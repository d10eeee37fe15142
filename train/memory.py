"""Out of memory: recognised on GPUs and CPUs, and which batch would fit, found by trying."""

import gc
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import nn

from train.batch import Batch

MOMENTS = 2
"""Copies of the weights that Adam keeps."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get memory; on a CPU it has no error class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def largest_that_fits(step: Callable[[Batch], Any], model: nn.Module, batch: Batch) -> int:
    """Halve the batch until a step passes.

    Args:
        step: forward and backward.
        model: its weights; room for Adam's moments is kept free meanwhile.
        batch: the one that did not fit.

    Returns:
        Clips that fit beside weights, gradients and moments; 0 if not even one does.
    """
    clips = len(batch) // 2
    while clips:
        release(batch.video.device)
        model.zero_grad(set_to_none=True)
        try:
            moments = [torch.empty_like(w) for w in model.parameters() for _ in range(MOMENTS)]
            step(batch.first(clips))
            del moments
            return clips
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        clips //= 2
    return 0


def release(device: torch.device) -> None:
    """Give back what nobody holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def memory_limit_bytes(device: torch.device) -> int:
    """Memory of the device, or of this machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
