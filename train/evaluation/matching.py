"""How well each sound of some clips goes with the pictures of each (task av_retrieval).

A method has two scores of a sound and pictures, which are what its objectives compare:

    global   that of L_g (`GlobalLoss.scores`): what a clip is like as a whole, whenever it happens
    local    that of L_l (`Glcm.in_time`): frames against the slices of their time, pooled by the
             sound's attention. Always the three slices of the frame itself, each by itself: over
             the windows that a model was trained with (M, one averaged pair) the same model finds
             more by narrow ones, so that models of different M could not be compared
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.errors import UsageError
from train.evaluation.clips import ClipBatch
from train.evaluation.encoders import Encoders, require_finite
from train.evaluation.timing import AT_ONCE, require_in_time
from train.objectives.global_local import SLICES_PER_FRAME
from train.progress import with_progress

GLOBAL, LOCAL = KINDS = ("global", "local")
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Embedded:
    """A window of each of some clips: float32, on the CPU."""

    fl: Tensor
    """(B, C, T, H, W)."""
    fa: Tensor
    """(B, C, 3T)."""
    audio: Tensor
    """(B, D) of the sound, for L_g."""
    grid: Tensor
    """(B, P, D) of the pictures."""

    def to(self, device: torch.device) -> "Embedded":
        """Elsewhere."""
        return Embedded(*(getattr(self, field.name).to(device) for field in fields(self)))


@torch.no_grad()
def embed(
    encoders: Encoders, batches: Iterable[ClipBatch], autocast: AbstractContextManager[Any]
) -> list[Embedded]:
    """Windows as the objectives see them, at most `AT_ONCE` to an entry.

    Args:
        encoders: in evaluation mode, on the batches' device, with both scores.
        batches: with pictures and sound.
        autocast: the region in which networks run.

    Raises:
        UsageError: the method has no such scores.
    """
    _require_scores(encoders)
    module: Any = encoders.module
    found = []
    for raw in batches:
        batch = raw.centred(encoders.crop)
        with autocast:
            seen = encoders.features(batch.video, batch.sound, ("fg", "fl", "fa"))
            audio, grid = module.embed_global(seen.get("fg", seen["fl"]), seen["fa"])
        whole = (seen["fl"], seen["fa"], audio, grid)
        parts = zip(*(tensor.float().cpu().split(AT_ONCE) for tensor in whole), strict=True)
        found += [Embedded(*part) for part in parts]
    return found


@torch.no_grad()
def match(encoders: Encoders, windows: list[Embedded], device: torch.device) -> dict[str, Floats]:
    """Both scores of every sound with all pictures.

    Args:
        encoders: those that embedded the windows, on the device; no more to be trained.
        windows: N clips in all.
        device: where to compute.

    Returns:
        By kind (N, N): sounds by pictures; comparable within a kind.

    Raises:
        TrainError: a score is not finite.
    """
    module: Any = encoders.module
    module.loss_l.window_M, module.loss_l.average = SLICES_PER_FRAME, False
    rows: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for sounds in with_progress(windows, "sounds with pictures", "batches"):
        heard = sounds.to(device)
        line: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
        for pictures in windows:
            shown = pictures.to(device)
            line[GLOBAL].append(module.loss_g.scores(heard.audio, shown.grid))
            line[LOCAL].append(module.in_time(shown.fl, heard.fa, heard.audio, shown.grid))
        for kind in KINDS:
            rows[kind].append(torch.cat(line[kind], dim=1).cpu())
    scores = {kind: torch.cat(rows[kind]).double().numpy() for kind in KINDS}
    require_finite(scores, "score")
    return scores


def _require_scores(encoders: Encoders) -> None:
    """Refuse a method that lacks one of them.

    Raises:
        UsageError: says which.
    """
    require_in_time(encoders)
    if not (hasattr(encoders.module, "loss_g") and hasattr(encoders.module, "loss_l")):
        raise UsageError(f"the method {encoders.method} has no scores of clips, `loss_g` and "
                         "`loss_l` as Glcm has them; name a checkpoint of glcm")  # fmt: skip


def ranks_of_own(scores: Floats) -> Ints:
    """(N, N), queries by candidates -> (N,): 1 where a query's own candidate scores highest.

    A tie counts against it, so that a collapsed model is not a perfect one.
    """
    found: Ints = (scores >= np.diag(scores)[:, None]).sum(axis=1)
    return found


def auc_of_class(scores: Floats, classes: Ints) -> Floats:
    """Does a query rank other candidates of its class above the rest? Its own one is left out.

    Args:
        scores: (N, N), queries by candidates.
        classes: (N,), -1 where unknown: such clips neither ask nor answer.

    Returns:
        (N,) area under the ROC curve, 0.5 by chance; NaN where the class, or another one, has no
        other clip.
    """
    from sklearn.metrics import roc_auc_score

    found = np.full(len(classes), np.nan)
    known = classes >= 0
    for query in np.flatnonzero(known).tolist():
        others = known.copy()
        others[query] = False
        same = classes[others] == classes[query]
        if 0 < same.sum() < len(same):
            found[query] = roc_auc_score(same, scores[query, others])
    return found
