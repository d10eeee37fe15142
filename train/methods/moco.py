"""MoCo: momentum contrast of two cuts of a clip (methods §6; He et al., CVPR 2020, Algorithm 1).

The query network embeds one cut of each clip, the key network the other one, both as unit vectors
of 128 numbers. The key network has no gradient; its weights follow the query's,

    theta_k <- m theta_k + (1 - m) theta_q,     m = 0.999

and its keys are kept in a queue. A query must tell its own clip's key from those of other clips:

    loss = mean over clips of  -log exp(q.k/T) / (exp(q.k/T) + sum over the queue of exp(q.n/T))

Three things are not as in the released code, because there is often one device and few clips.

Shuffling. With BatchNorm in the key network a key carries the statistics of its batch. Query and
key of a clip come from the same batch, the queue from others, so the statistics alone tell the
positive. The released code shuffles keys between devices; on one device that changes nothing, for
the batch stays the same. Here the key network normalises with running statistics that follow the
query network's as the weights do (EMAN, Cai et al., CVPR 2021): a key depends on its clip alone,
with any number of devices. `key_norm="batch"` is BatchNorm without a cure; with --sync-bn its
statistics are those of all devices' clips, of which the same holds.

Own old keys. The queue may be longer than an epoch, and then holds a clip's own earlier keys. In
training they are left out of its negatives, by the clips' ids.

The first batches. A queue that begins with random vectors sets no task: an untrained network, for
which all clips look alike, still ranks every positive first (accuracy 1.00, loss 0.00 on held-out
clips). Here it begins empty, and the keys of a batch enter it before its scores are taken, so that
the other clips of the batch are its first negatives.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.cuts import Clip, Cut, Reads
from train.methods.table5 import (
    EncoderConfig,
    VideoMethod,
    require_above,
    require_at_least,
    require_one_of,
)
from train.models.attention import full_precision
from train.objectives.global_local import Gather, keep_local, own_first
from train.objectives.queues import Queue

KeyNorm = Literal["running", "batch"]
Head = Literal["linear", "mlp"]

NO_CLIP = -1
"""Id of a row of the queue that is still empty."""
COPIED_BATCHES = 44
"""So long the key network takes over the query's running statistics as they are: they begin as
mean 0 and variance 1, of which BatchNorm's momentum of 0.1 leaves 1 % after 44 batches."""


@dataclass(frozen=True)
class MocoConfig(EncoderConfig):
    """Input, encoder and the contrast."""

    queue: int = 4096
    """K: keys that are kept as negatives, >= 1. The released code has 65536 for a
    million pictures; the paper's K-AV-15K has 15 000 clips."""
    momentum: float = 0.999
    """m: what the key network keeps of itself at each batch, 0 .. 1."""
    temperature: float = 0.07
    """T, > 0."""
    width_out: int = 128
    """Numbers of a query or key."""
    head: Head = "linear"
    """From the encoder's mean feature to queries: `linear` as in MoCo, or `mlp` with one hidden
    layer as in MoCo v2."""
    key_norm: KeyNorm = "running"
    """BatchNorm of the key network: `running` statistics that follow the query's, or those of the
    `batch`, which tell a key's batch."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, saying what could."""
        super().__post_init__()
        for name in ("queue", "width_out"):
            require_at_least(name, getattr(self, name), 1)
        require_above("temperature", self.temperature, 0)
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum is {self.momentum}; expected 0 to 1")
        require_one_of("head", self.head, get_args(Head))
        require_one_of("key_norm", self.key_norm, get_args(KeyNorm))

    @property
    def told_apart_from(self) -> str:
        """What a clip is told apart from, for the log."""
        return f"{self.queue} queued keys are negatives of each clip, once the queue is full"

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What one clip gives the module, without the batch dimension."""
        return self.views(2)

    @property
    def reads(self) -> Reads:
        """Two cuts of a clip, without sound."""
        return Reads(
            frames=self.frames,
            least_frames=self.frames,
            views=2,
            mel=False,
            cut=partial(two_windows, frames=self.frames),
        )


def two_windows(clip: Clip, rng: np.random.Generator, frames: int) -> Cut:
    """Two runs of pictures, each anywhere in the clip; they may overlap."""
    starts = rng.integers(clip.frames - frames + 1, size=2)
    return Cut([int(start) + t for start in starts for t in range(frames)])


class TwoViews(Protocol):
    """What of a batch the method looks at."""

    @property
    def video(self) -> Tensor:
        """Float (B, 2, 3, T, H, W), normalised."""

    @property
    def instance(self) -> Tensor:
        """int64 (B,)."""


class KeyMemory(nn.Module):
    """What only training needs: the key network and the queue; all without gradient.

    Attributes:
        encoder, head: the key network.
        queue: the newest K keys.
        instance: int64 (K,), whose key a row of the queue is; NO_CLIP where it is empty.
        batches: int64, batches trained on.
    """

    instance: Tensor
    batches: Tensor

    def __init__(self, config: MocoConfig, encoder: nn.Module, head: nn.Module) -> None:
        """Copy the query network."""
        super().__init__()
        self.momentum = config.momentum
        self.key_norm = config.key_norm
        self.encoder, self.head = deepcopy(encoder), deepcopy(head)
        self.queue = Queue(config.queue, config.width_out)
        self.register_buffer("instance", torch.full((config.queue,), NO_CLIP))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "KeyMemory":
        """As always, but for a key network that uses running statistics."""
        super().train(mode)
        if self.key_norm == "running":
            self.encoder.eval()
        return self

    @torch.no_grad()
    def follow(self, encoder: nn.Module, head: nn.Module) -> None:
        """The key network takes a step towards the query network.

        The first step takes over all of it: the run may have started from another one's weights.
        """
        step = torch.full((), 1 - self.momentum, device=self.batches.device)
        first = self.batches == 0
        for own, other in ((self.encoder, encoder), (self.head, head)):
            _move(own.parameters(), other.parameters(), torch.where(first, 1.0, step))
        if self.key_norm == "running":
            share = torch.where(self.batches < COPIED_BATCHES, 1.0, step)
            _move(_statistics(self.encoder), _statistics(encoder), share)

    @torch.no_grad()
    def remember(self, keys: Tensor, instance: Tensor) -> None:
        """Replace the oldest keys.

        Args:
            keys: (N, D) of all ranks.
            instance: (N,) whose they are.
        """
        newest = instance[-self.queue.size :]
        first = self.queue.written + len(instance) - len(newest)
        rows = (first + torch.arange(len(newest), device=newest.device)) % self.queue.size
        self.instance[rows] = newest
        self.queue.append(keys)
        self.batches += 1


class Moco(VideoMethod):
    """Query network and loss.

    Attributes:
        encoder, project: the query network.
        memory: key network and queue.
    """

    def __init__(self, config: MocoConfig, gather: Gather = keep_local) -> None:
        """Build the networks.

        Args:
            config: what to build.
            gather: (B, ...) -> (ranks x B, ...), ranks in order; all ranks share their keys.
        """
        super().__init__(config)
        self.config = config
        self.gather = gather
        self.project = _head(config, self.encoder.out_channels)
        self.memory = KeyMemory(config, self.encoder, self.project)

    def forward(self, batch: TwoViews) -> dict[str, Tensor]:
        """The loss of a batch; in training the key network and the queue change, too.

        Returns:
            loss: what to minimise.
            queue_accuracy: share of queries that rank their own clip's key before the queue.
            views_r1: share of queries that find their key among those of this rank's batch.
            pos, neg: mean cosine with the own key, and with the queue.
        """
        if batch.video.ndim != 6 or batch.video.shape[1:3] != (2, 3):
            raise ValueError(
                f"video is {tuple(batch.video.shape)}; expected two views, (B, 2, 3, T, H, W)"
            )
        memory = self.memory
        queries = embed(self.encoder, self.project, batch.video[:, 0])
        if self.training:
            memory.follow(self.encoder, self.project)
        with torch.no_grad():
            keys = embed(memory.encoder, memory.head, batch.video[:, 1])
            if self.training:
                memory.remember(self.gather(keys), self.gather(batch.instance))
        # Held-out clips have numbers of their own, which say nothing about the queue.
        own = batch.instance[:, None] == memory.instance if self.training else None
        others = memory.queue.scores(queries)
        return momentum_contrast(queries, keys, others, own, self.config.temperature)

    def with_controls(self, batch: TwoViews) -> dict[str, Tensor]:
        """What held-out evaluation measures: what `forward` returns, and what drawing gives.

        Returns:
            loss_chance, queue_accuracy_chance, views_r1_chance: with equal logits, drawn at random.
        """
        facts = self.forward(batch)
        candidates = 1.0 + self.memory.queue.filled
        chances = {
            "loss": candidates.log(),
            "queue_accuracy": 1 / candidates,
            "views_r1": torch.tensor(1 / len(batch.video)),
        }
        return facts | {f"{name}_chance": chance for name, chance in chances.items()}


def embed(encoder: nn.Module, head: nn.Module, video: Tensor) -> Tensor:
    """Unit vectors (B, D), float32, of (B, 3, T, H, W)."""
    vectors: Tensor = head(encoder(video).mean(dim=(2, 3, 4)))
    return F.normalize(vectors.float(), dim=1)


def momentum_contrast(
    queries: Tensor, keys: Tensor, others: Tensor, own: Tensor | None, temperature: float
) -> dict[str, Tensor]:
    """Loss and facts from queries and keys (B, D), and cosines with the queue.

    Args:
        queries: unit vectors, with gradient.
        keys: unit vectors; row i belongs to query i.
        others: (B, K) cosines of queries and queue, -inf where it is empty.
        own: (B, K) bool, which are no negatives; None where all are.
        temperature: > 0.
    """
    with full_precision(queries):
        positive = (queries * keys).sum(dim=1, keepdim=True)
        negative = others if own is None else others.masked_fill(own, -torch.inf)
        logits = torch.cat([positive, negative], dim=1) / temperature
        loss = (logits.logsumexp(dim=1) - logits[:, 0]).mean()
        with torch.no_grad():
            first = positive[:, 0] > negative.amax(dim=1)
            known = negative.isfinite()
            facts = {
                "queue_accuracy": first.float().mean(),
                "views_r1": own_first(queries @ keys.T),
                "pos": positive.mean(),
                "neg": negative.masked_fill(~known, 0).sum() / known.sum().clamp(min=1),
            }
    return {"loss": loss, **facts}


def _move(own: Iterable[Tensor], towards: Iterable[Tensor], share: Tensor) -> None:
    """Each of the first ones goes this share of the way to its counterpart."""
    for key, query in zip(own, towards, strict=True):
        key.lerp_(query, share.to(key.dtype))


def _statistics(network: nn.Module) -> list[Tensor]:
    """Running means and variances; not the count of batches."""
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


def _head(config: MocoConfig, channels: int) -> nn.Module:
    if config.head == "linear":
        return nn.Linear(channels, config.width_out)
    return nn.Sequential(
        nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, config.width_out)
    )


_MOCO = MocoConfig()
_TINY = MocoConfig(frames=8, crop=64, width=16, queue=256, momentum=0.9)

PRESETS: dict[str, MocoConfig] = {
    "moco": _MOCO,
    "moco_grid": replace(_MOCO, frames=15),
    "tiny": _TINY,
    "tiny_grid": replace(_TINY, frames=15),
}
"""`moco` is the size of Table 5; `tiny` fits two CPU cores, and its key network keeps up with the
few hundred steps that it is trained for. The `_grid` ones show as many pictures as those of VDIM,
of which GRID's clips of 3 s have no more."""
