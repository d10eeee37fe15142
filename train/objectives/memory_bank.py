"""Memory banks by instance: targets of AVID and CMA that outlast the batch (methods §3).

One unit vector an instance and modality, drawn at random at first. After each training batch the
vectors of its clips, of all ranks, move half way to what the networks say now. Negatives are drawn
among the other instances on the device: by a hash of (instance, step, number of the draw), so that
two ranks draw for their clips what one rank with all of them would draw, a resumed run draws what
an undisturbed one would, and nobody waits for the host.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.models.attention import full_precision

# Three odd numbers of 64 bits with ones and zeros well mixed: the fractional parts of the golden
# ratio and of the square roots of 2 and 3. As int64 tensors multiply, they wrap around.
_STRIDE = -0x61C8864680B583EB
_FACTORS = (0x6A09E667F3BCC909, -0x4498517A7B3558C5)
_SHIFTS = (32, 29, 32)


class MemoryBanks(nn.Module):
    """What is remembered of each instance; all of it is saved in checkpoints.

    Attributes:
        video, audio: float32 (N, D), rows of length 1.
        z: normalisation Z of NCE, () float32; 0 until the first batch.
        batches: int64 (), training batches so far.
        seen: bool (N,), whether an instance's vectors are no longer those drawn at random.
        trained: int64 (n,), ids that batches have, ascending; others are never drawn. Not saved:
            it is the run's.
    """

    video: Tensor
    audio: Tensor
    z: Tensor
    batches: Tensor
    seen: Tensor
    trained: Tensor

    carried_over = ("video", "audio", "z", "seen")
    """What a run that starts from another one's weights (--init) takes of its memories."""

    def __init__(
        self, instances: int, width: int, momentum: float = 0.5, trained: Tensor | None = None
    ) -> None:
        """Draw the vectors.

        Args:
            instances: N; ids are 0 .. N - 1.
            width: D.
            momentum: share of the old vector in the new one, 0 .. 1.
            trained: ids that batches have, ascending; None: all.

        Raises:
            ValueError: there is nothing to tell apart.
        """
        super().__init__()
        trained = torch.arange(instances) if trained is None else trained
        if len(trained) < 2:
            raise ValueError(f"{len(trained)} clips; a memory bank contrasts 2 clips or more")
        self.momentum = momentum
        self.register_buffer("trained", trained, persistent=False)
        for name in ("video", "audio"):
            self.register_buffer(name, functional.normalize(torch.randn(instances, width), dim=1))
        self.register_buffer("z", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(instances, dtype=torch.bool))

    @torch.no_grad()
    def update(self, instance: Tensor, video: Tensor, audio: Tensor) -> None:
        """Take over what the networks say of a batch, and count it.

        Args:
            instance: int64 (B,) of all ranks; an instance may be there more than once, and then
                the mean of its vectors is taken.
            video: (B, D) of all ranks, of length 1.
            audio: (B, D), the same.
        """
        same = (instance[:, None] == instance).float()
        share = same / same.sum(dim=1, keepdim=True)
        for bank, new in ((self.video, video), (self.audio, audio)):
            with full_precision(bank):
                mixed = torch.lerp(share @ new.float(), bank[instance], self.momentum)
                bank[instance] = functional.normalize(mixed, dim=1)
        self.seen[instance] = True
        self.batches += 1

    def draw(self, excluded: Tensor, bits: Tensor) -> Tensor:
        """Ids of instances that are trained on and not excluded; see `draw_outside`.

        Args:
            excluded: int64 (B, E) ids, rows sorted and without repetition.
            bits: int64 (B, K) >= 0.
        """
        places = torch.searchsorted(self.trained, excluded)
        return self.trained[draw_outside(places, bits, len(self.trained))]

    @torch.no_grad()
    def normalisation(self, exponentials: Tensor, keep: bool) -> Tensor:
        """Z: the mean of exp(score) over the negatives of the first batch, then that for good.

        Args:
            exponentials: such means of all ranks, any shape.
            keep: whether this batch may set it.
        """
        z = torch.where(self.z > 0, self.z, exponentials.mean())
        if keep:
            self.z.copy_(z)
        return z


def expected_normalisation(width: int, tau: float) -> float:
    """Z of random unit vectors: their products are nearly normal with variance 1 / D.

    2.219 for 128 numbers and temperature 0.07; AVID reports 2.2045.
    """
    return math.exp(1 / (2 * width * tau**2))


def nce(positive: Tensor, negative: Tensor, z: Tensor, draws: int | None = None) -> Tensor:
    """The NCE loss of AVID (paper Eq. 2), in a form that cannot overflow.

    -log(e+ / (e+ + KZ)) - sum over negatives of log(KZ / (e- + KZ)), with e = exp(score). Of
    several positives the mean is taken, as in Eq. 8.

    Args:
        positive: (B, P) scores.
        negative: (B, n) scores.
        z: Z, ().
        draws: K where the negatives are not K draws, but stand for them; None is n.

    Returns:
        (B,) float32.
    """
    count = negative.shape[1]
    draws = count if draws is None else draws
    with full_precision(positive):
        level = math.log(draws) + z.float().log()
        missed = functional.softplus(level - positive.float()).mean(dim=1)
        taken = functional.softplus(negative.float() - level).sum(dim=1)
        return missed + taken * (draws / max(count, 1))


# --- drawing --------------------------------------------------------------------------------------


def draw_outside(excluded: Tensor, bits: Tensor, instances: int) -> Tensor:
    """Instances that are not excluded, uniform and with repetition.

    Args:
        excluded: int64 (B, E), rows sorted and without repetition.
        bits: int64 (B, K) >= 0, as `hashed` gives them.
        instances: N > E.

    Returns:
        int64 (B, K), 0 .. N - 1.
    """
    place = bits % (instances - excluded.shape[1])
    # excluded[m] - m instances before excluded[m] may be drawn: each of those that the place lies
    # behind moves it on by one.
    before = excluded - torch.arange(excluded.shape[1], device=excluded.device)
    return place + torch.searchsorted(before.contiguous(), place, right=True)


def draw_some(found: Tensor, bits: Tensor, count: int) -> Tensor:
    """`count` different columns of each row of `found` (B, P), uniform; bits int64 (B, P)."""
    if count == found.shape[1]:
        return found
    return found.gather(1, bits.topk(count, dim=1).indices)


def hashed(instance: Tensor, step: Tensor, draws: int, purpose: int = 0) -> Tensor:
    """Bits for each (instance, step, number of the draw, purpose): the same whoever asks.

    Args:
        instance: int64 (B,).
        step: int64 ().
        draws: how many for each instance.
        purpose: another number gives other bits.

    Returns:
        int64 (B, draws), uniform in 0 .. 2^63 - 1.
    """
    clip = _mixed(_mixed(_mixed(instance) + purpose) + step)
    number = torch.arange(draws, device=instance.device)
    return _mixed(clip[:, None] + number) & (2**63 - 1)


def _mixed(x: Tensor) -> Tensor:
    """Every bit of the result hangs on every bit of x; different x give different results.

    Multiplications by odd numbers and shifts folded in, both of which can be undone.
    """
    x = (x + 1) * _STRIDE
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        x = (x ^ _shifted(x, shift)) * factor
    return x ^ _shifted(x, _SHIFTS[-1])


def _shifted(x: Tensor, by: int) -> Tensor:
    """Shifted to the right with zeros moving in, which >> of a negative int64 does not do."""
    return (x >> by) & ((1 << (64 - by)) - 1)
