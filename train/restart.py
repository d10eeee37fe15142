"""From a run to its checkpoint and back: what has to be the same, and what may differ.

A run goes on at the very next clip, also on another number of ranks or with another batch size,
because its position is counted in clips of the epoch's one global order.
"""

import hashlib
import logging
import os
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from train import checkpoint
from train.best import Best
from train.config import PretrainConfig, differences
from train.dist import Ranks
from train.errors import UsageError
from train.methods import MEMORY
from train.mixture import Part
from train.plan import Plan, seed_of
from train.session import Progress, Run

log = logging.getLogger(__name__)


def resume(
    config: PretrainConfig[Any],
    run: Run,
    plan: Plan,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ranks: Ranks,
) -> Progress:
    """Load the newest checkpoint of the run, or begin.

    Raises:
        UsageError: the run was made with another configuration or other clips.
    """
    saved = checkpoint.newest(run.checkpoints)
    if saved is None:
        if config.init is not None:
            start_from(config, model, plan.mixture.first_instances())
        torch.manual_seed(seed_of(config.seed, "rank", ranks.rank) >> 1)
        return Progress()
    changed = differences(saved["config"], config)
    if changed:
        raise UsageError(
            f"{run.folder} is a run with other settings: {'; '.join(changed)}. Repeat them "
            f"(--config {run.folder}/config.json), or start another RUN with --init {run.folder}"
        )
    load_weights(model, saved["model"], run)
    optimizer.load_state_dict(saved["optimizer"])
    _restore_random(config, saved, ranks)
    best = Best(**saved["best"]) if isinstance(saved["best"], dict) else None  # a float, once
    unmeasured = saved.get("unmeasured", False)  # older checkpoints do not say
    progress = Progress(saved["step"], batches_used(saved, plan), best, unmeasured)
    log.info("going on at step %d of %s", progress.step, run.folder)
    return progress


def batches_used(saved: dict[str, Any], plan: Plan) -> int:
    """Where the loader goes on: the same clip, also with other ranks or another batch size.

    Raises:
        UsageError: instance ids mean other clips now.
    """
    if saved["first_instances"] != plan.mixture.first_instances():
        raise UsageError(
            f"the sets of this run were {saved['first_instances']} (name: first instance id), now "
            f"they are {plan.mixture.first_instances()}; start another RUN with --init"
        )
    epoch, clips = int(saved["position"]["epoch"]), int(saved["position"]["clips"])
    if saved["fingerprint"] != plan.mixture.fingerprint():
        log.warning(
            "the clips have changed since (added, tried again with success, or dropped): the order "
            "of the clips in an epoch is another one now; going on with the next epoch"
        )
        return (epoch + bool(clips)) * plan.batches_per_epoch
    batch = -(-clips // (plan.batch_size * plan.world))  # upwards: nothing is seen twice
    return epoch * plan.batches_per_epoch + min(batch, plan.batches_per_epoch)


def _restore_random(config: PretrainConfig[Any], saved: dict[str, Any], ranks: Ranks) -> None:
    """Each rank's own state; new ones, which differ between ranks, where their number differs."""
    before = len(saved["random"])
    if before == ranks.world:
        checkpoint.restore_random_state(saved["random"][ranks.rank], ranks.device)
        return
    torch.manual_seed(seed_of(config.seed, "rank", ranks.rank, "from step", saved["step"]) >> 1)
    log.warning(
        "the checkpoint is of %d ranks, there are %d now: going on at the same clip, but dropout "
        "and other random numbers of the model are drawn anew", before, ranks.world,
    )  # fmt: skip


def load_weights(model: nn.Module, weights: dict[str, Tensor], run: Run) -> None:
    """The weights of a run into its model.

    Raises:
        UsageError: they are of another size, as memories of a set that has grown.
    """
    own = model.state_dict()
    for name, tensor in weights.items():
        if name in own and own[name].shape != tensor.shape:
            raise UsageError(
                f"{name} of {run.folder} is {tuple(tensor.shape)}, and would be "
                f"{tuple(own[name].shape)} now: its sets have another number of clips. Start "
                f"another RUN with --init {run.folder}"
            )
    model.load_state_dict(weights)


def weights_to_start_from(
    saved: dict[str, Any], model: nn.Module, first_instances: dict[str, int]
) -> dict[str, Tensor]:
    """Of memories only those that `memory.carried_over` names, and only where clips are the same.

    Counters and schedules begin anew.
    """
    same = saved["first_instances"] == first_instances
    names: Any = getattr(getattr(model, "memory", None), "carried_over", ())
    carried = {MEMORY + name for name in names}
    left_out = [name for name in saved["model"] if name in carried] if not same else []
    kept = {
        name: tensor
        for name, tensor in saved["model"].items()
        if not name.startswith(MEMORY) or (same and name in carried)
    }
    if left_out:
        log.warning(
            "--init: nothing of %s is taken: its sets were %s (name: first instance id), now they "
            "are %s", ", ".join(left_out), saved["first_instances"], first_instances,
        )  # fmt: skip
    return kept


def start_from(
    config: PretrainConfig[Any], model: nn.Module, first_instances: dict[str, int]
) -> None:
    """`--init`: weights by name and shape; what does not match is listed.

    Raises:
        UsageError: nothing does.
    """
    assert config.init is not None
    saved = checkpoint.load(config.init)
    unmatched = checkpoint.copy_weights(model, weights_to_start_from(saved, model, first_instances))
    named = {line.split(": ")[0] for line in unmatched}
    unmatched = [line for line in unmatched if not line.startswith(MEMORY)]
    if named >= {name for name in model.state_dict() if not name.startswith(MEMORY)}:
        raise UsageError(
            f"--init {config.init}: none of its weights fits; it is of the method "
            f"{saved['config']['method']!r}, preset {saved['config']['preset']!r}, this run of "
            f"{config.method!r}, {config.preset!r}. Name a run of the same method"
        )
    log.info("weights from %s, step %d, fresh optimiser", config.init, saved["step"])
    for line in unmatched:
        log.warning("--init: %s", line)


def save(
    config: PretrainConfig[Any],
    run: Run,
    plan: Plan,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ranks: Ranks,
    progress: Progress,
    is_best: bool,
) -> None:
    """A checkpoint by the first rank; all wait for it."""
    position = plan.position(progress.batches)
    random = ranks.all_objects(checkpoint.random_state(ranks.device))
    if ranks.is_first:
        path = checkpoint.save(
            run.checkpoints,
            progress.step,
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": random,
                "position": {
                    "epoch": position.epoch,
                    "clips": position.batch * plan.batch_size * plan.world,
                },
                "best": asdict(progress.best) if progress.best else None,
                "unmeasured": progress.unmeasured,
                "config": config.as_dict(),
                "fingerprint": plan.mixture.fingerprint(),
                "first_instances": plan.mixture.first_instances(),
                **code_state(),
            },
            config.keep,
            best=is_best,
        )
        log.info("saved %s", path)
        run.saved()
    ranks.wait()


def code_state() -> dict[str, Any]:
    """Which code runs: commit, uncommitted changes, plugins, torch."""
    return {
        "git": checkpoint.git_state(),
        "plugins": os.environ.get("GLAV_PLUGINS", ""),
        "torch": str(torch.__version__),  # a class of its own otherwise
    }


def origin_of(plan: Plan, ranks: Ranks) -> dict[str, Any]:
    """Where a run's numbers come from, for RUN/origin.json and `train diff`.

    Returns:
        git, plugins, torch; ranks, device; fingerprint of the clips; and of each set its path,
        config_hash, index_hash (of what its index says about shards and samples) and counts.
    """
    return {
        **code_state(),
        "ranks": ranks.world,
        "device": str(ranks.device),
        "fingerprint": plan.mixture.fingerprint(),
        "sets": {part.shard_set.name: _set_facts(part) for part in plan.mixture.parts},
    }


def _set_facts(part: Part) -> dict[str, Any]:
    chosen = part.shard_set
    digest = hashlib.sha256("\n".join(chosen.shards).encode())
    for array in (chosen.shard_bytes, chosen.shard, chosen.offset, chosen.instance, chosen.frames):
        digest.update(array.tobytes())
    return {
        "path": str(chosen.store),
        "config_hash": chosen.config_hash,
        "index_hash": digest.hexdigest(),
        "complete": chosen.complete,
        "shards": len(chosen.shards),
        "clips": len(part.rows),
        "clips_per_epoch": part.clips_per_epoch,
        "too_short": part.too_short,
        "lacks_field": part.lacks_field,
        "not_in_view": part.not_in_view,
    }
