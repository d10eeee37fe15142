"""`python -m train pretrain`: the loop. Shards in, checkpoints and metrics out.

    python -m train pretrain --shards data/shards/demo-glcm --preset tiny --max-steps 100
    torchrun --standalone --nproc_per_node 8 -m train pretrain --run-dir first

The same command goes on where the run stands: after Ctrl-C, a crash or preemption. Ctrl-C finishes
the step and saves; a second one stops at once.
"""

import errno
import logging
import shutil
import warnings
from contextlib import closing, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from train import checkpoint, session
from train.augment import Augment
from train.batch import Batch
from train.config import PretrainConfig
from train.cores import limit_threads
from train.cuts import RunFacts
from train.dist import Ranks, gather_with_grad, joined
from train.errors import DiskError, TooLargeError, TrainError, UsageError
from train.heldout import HeldOut
from train.loader import ClipLoader, default_workers, on_device
from train.memory import is_out_of_memory, largest_that_fits, memory_limit_bytes
from train.meter import Meter
from train.methods import method_named
from train.mixture import Mixture, open_mixture, parse_shards, require_mel_slices
from train.plan import Plan, seed_of
from train.profile import StepProfile
from train.readers import death_line
from train.restart import origin_of, resume, save
from train.schedule import learning_rates
from train.session import Progress, Run, Stop

log = logging.getLogger(__name__)

COMPLETE, PREEMPTED = 0, 85
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""What is said by a disk that is full, over a quota or limit, read-only or broken."""


def pretrain(config: PretrainConfig[Any], stop: Stop | None = None) -> int:
    """Train, or go on training.

    Args:
        config: of the run.
        stop: set when it is told to stop, also where that is too late for this run.

    Returns:
        0 when the schedule or --max-steps is reached, 85 when told to stop and saved.

    Raises:
        TrainError: with a sentence.
    """
    with (
        session.stop_on_signals(stop) as stop,
        joined(config.device) as ranks,
        session.opened(config.folder, ranks.is_first, config.copy_to) as run,
    ):
        ranks.wait()  # the first one may have fetched the run
        if run.finished:
            log.info("%s", finished_line(config, run.finished))
            return COMPLETE
        try:
            return train(config, ranks, run, stop)
        except OSError as error:
            if error.errno not in DISK:
                raise
            raise DiskError(disk_line(run, error)) from error
        except RuntimeError as error:
            if death := death_line(error):
                raise TrainError(death) from error
            if not is_out_of_memory(error):  # of the optimiser, or of the augmentation
                raise
            raise TooLargeError(out_of_memory_line(config, ranks.device, None)) from error


def train(config: PretrainConfig[Any], ranks: Ranks, run: Run, stop: Stop) -> int:
    """The loop, read from top to bottom."""
    # --- data
    sources = parse_shards(
        config.shards, config.data, allow_http=config.allow_http, cache=config.cache()
    )
    mixture = open_mixture(
        sources, reads=config.reads, split=config.split, subset_seed=config.subset_seed,
        view=config.view(),
    )  # fmt: skip
    require_mel_slices(mixture, config.model)
    plan = Plan(mixture, config.seed, config.clips_per_batch, ranks.world, ranks.rank)
    workers = default_workers(ranks.local_world) if config.workers is None else config.workers
    loader = ClipLoader(plan, workers, pin_memory=ranks.device.type == "cuda", guard=config.guard())
    augment = Augment(config.augment, config.model.crop, config.seed, ranks.world, ranks.rank)
    held_out = HeldOut.of(config, sources, mixture, ranks, workers, stop)

    # --- model
    model = build_model(config, ranks.device, facts_of_run(config, mixture, len(loader)))
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = build_optimizer(config, trainable)
    progress = resume(config, run, plan, model, optimizer, ranks)
    parallel = parallel_model(model, config, ranks)

    # --- schedule
    batches_left = config.epochs * len(loader) - progress.batches
    steps = config.schedule_steps or progress.step + max(batches_left // config.accumulation, 0)
    rates = learning_rates(steps, config.lr, config.warmup_steps)
    last_step = min(steps, config.max_steps or steps)
    clips_per_step = plan.batch_size * ranks.world * config.accumulation
    meter = Meter(run, ranks.device, clips_per_step, last_step, config.log_every,
                  flop_per_clip(config, ranks.device), ranks, loader.guard,
                  clips_compared=clips_compared(config, plan))  # fmt: skip
    announce(config, plan, workers, steps, last_step, progress, ranks)
    run.begin(config.as_dict(), origin_of(plan, ranks), progress.step)
    if ranks.is_first:
        session.record_clips(run.folder, mixture.table())
    stop.speaks, stop.saved_step = ranks.is_first, progress.step

    # --- what the last call left undone
    owed = progress.unmeasured and held_out.due(progress.step, last_step)
    if owed:
        is_best = held_out.improves(model, progress, run)
        if progress.unmeasured:
            return preempted(run, ranks, stop, progress)
        save(config, run, plan, model, optimizer, ranks, progress, is_best)
    progress.unmeasured = False

    # --- steps
    profile = StepProfile(config.profile, run.folder, ranks.device, ranks.rank)
    batches = on_device(loader.batches(plan.position(progress.batches)), ranks.device)
    with closing(batches):  # its readers would keep the process waiting when it ends
        while progress.step < last_step:
            for group in optimizer.param_groups:
                group["lr"] = float(rates[progress.step])
            facts, keys = [], []
            for micro in range(config.accumulation):
                with profile.phase("data"):
                    batch = augment(meter.next_of(batches), progress.batches)
                is_last = micro == config.accumulation - 1
                facts += [forward_backward(parallel, batch, config, ranks.device, is_last, profile)]
                keys += [batch.keys]
                progress.batches += 1
            with profile.phase("optimizer"):
                norm = nn.utils.clip_grad_norm_(trainable, config.clip_norm or float("inf"))
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            progress.step += 1
            epoch = progress.batches / len(loader)
            meter.record(progress.step, epoch, facts, float(rates[progress.step - 1]), norm, keys)

            told_to_stop = ranks.any(stop.wanted)  # the same answer on all ranks, at the same step
            measuring = held_out.due(progress.step, last_step)
            saving = progress.step % config.checkpoint_every == 0 or progress.step == last_step
            if measuring or saving or told_to_stop:
                meter.flush()  # first, so that nothing is saved that the guard would refuse
                with profile.phase("saving"):
                    is_best = measuring and held_out.improves(model, progress, run)
                    told_to_stop = told_to_stop or progress.unmeasured
                    if saving or told_to_stop or is_best:
                        save(config, run, plan, model, optimizer, ranks, progress, is_best)
                        stop.saved_step = progress.step
                    if measuring and not told_to_stop:  # the page is written at the end, too
                        run.show()
                meter.pause()  # steps are timed without this
            profile.end_of_step(progress.step)
            if told_to_stop and (progress.step < last_step or progress.unmeasured):
                return preempted(run, ranks, stop, progress)

    # --- end
    profile.abandon()
    if progress.step >= steps:
        facts_of_end = {"step": progress.step, "epochs": progress.batches / len(loader)}
        run.end(session.FINISHED, facts_of_end)
        log.info("%s", finished_line(config, facts_of_end))
    else:
        log.info("stopped at --max-steps %d of %d; the same command with a larger one goes on",
                 last_step, steps)  # fmt: skip
    return COMPLETE


def preempted(run: Run, ranks: Ranks, stop: Stop, progress: Progress) -> int:
    """Say that the run was told to stop, and is saved."""
    name = next(filter(None, ranks.all_objects(stop.name)))  # it may be another rank's
    log.info("%s: saved at step %d; the same command goes on", name, progress.step)
    run.end(session.PREEMPTED, {"step": progress.step, "signal": name})
    return PREEMPTED


# --- the pieces, in the order of use ------------------------------------------------------------


def facts_of_run(config: PretrainConfig[Any], mixture: Mixture, batches: int) -> RunFacts:
    """What a module may ask for before it is trained; `batches` are those of an epoch."""
    steps_per_epoch = max(batches // config.accumulation, 1)
    steps = config.schedule_steps or config.epochs * batches // config.accumulation
    trained = mixture.chosen_instances()
    return RunFacts(mixture.instances, steps, steps_per_epoch, config.accumulation, trained)


def build_model(
    config: PretrainConfig[Any], device: torch.device, facts: RunFacts | None = None
) -> nn.Module:
    """The method's module with weights of this seed, the same on every rank.

    Args:
        config: of the run.
        device: where it goes.
        facts: handed to the module's `prepare`, if it has one.

    Raises:
        UsageError: --sync-bn without a GPU.
    """
    if config.sync_bn and device.type != "cuda":
        raise UsageError("--sync-bn needs GPUs; leave it out on a CPU")
    torch.manual_seed(seed_of(config.seed, "weights") >> 1)
    torch.set_float32_matmul_precision("highest")  # TF32 would round the losses' logits
    torch.backends.cudnn.allow_tf32 = False  # or --precision fp32 would not be fp32 on a GPU
    torch.backends.cudnn.benchmark = True  # batches have one shape: the fastest kernels are found
    limit_threads(config.threads)
    model: nn.Module = method_named(config.method).module(config.model, gather_with_grad)
    if facts is not None and hasattr(model, "prepare"):
        model.prepare(facts)  # type: ignore[operator]
    if config.sync_bn:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return model.to(device).train()


def build_optimizer(config: PretrainConfig[Any], weights: list[nn.Parameter]) -> Optimizer:
    """The one that the config names."""
    decay = config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(weights, config.lr, config.momentum, weight_decay=decay, fused=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(weights, config.lr, config.betas, weight_decay=decay, fused=True)


def parallel_model(model: nn.Module, config: PretrainConfig[Any], ranks: Ranks) -> nn.Module:
    """Compiled if wished for, and averaging gradients over ranks where there are several."""
    wrapped: Any = torch.compile(model) if config.compile else model
    if ranks.world > 1:
        for weight in model.parameters():
            if weight.requires_grad and weight.ndim == 5 and weight.is_contiguous():
                # Kernels of one place: convolutions give their gradients now these, now those
                # strides for the same memory, and DDP would warn of that at each start.
                strides = weight.stride()
                weight.register_hook(  # type: ignore[no-untyped-call]
                    lambda gradient, strides=strides: gradient.contiguous().as_strided(
                        gradient.shape, strides
                    )
                )
        with warnings.catch_warnings():
            # Buffers stay each rank's own: banks are large, and batch statistics are not used here.
            # Newer torch announces another flag, but says itself to keep this one for such buffers.
            warnings.simplefilter("ignore", FutureWarning)
            wrapped = DistributedDataParallel(wrapped, broadcast_buffers=False)
    return wrapped  # type: ignore[no-any-return]


def forward_backward(
    model: nn.Module,
    batch: Batch,
    config: PretrainConfig[Any],
    device: torch.device,
    sync: bool,
    profile: StepProfile | None = None,
) -> dict[str, Tensor]:
    """One batch: its losses and facts, detached; gradients are added up, sent at the last batch.

    Raises:
        TooLargeError: memory is too small; the message names a batch that fits.
    """
    profile = profile or StepProfile(0, config.folder, device)
    half = config.uses_bf16(device)
    waiting = isinstance(model, DistributedDataParallel) and not sync

    def step(clips: Batch) -> dict[str, Tensor]:
        with model.no_sync() if waiting else nullcontext():  # type: ignore[operator]
            with profile.phase("forward"), torch.autocast(device.type, torch.bfloat16, half):
                facts: dict[str, Tensor] = model(clips)
            with profile.phase("backward"):
                (facts["loss"] / config.accumulation).backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in facts.items()}

    try:
        return step(batch)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Out of the except block, because the error holds on to the tensors of the failed step.
    alone = not isinstance(model, DistributedDataParallel)  # other ranks would not join a trial
    fits = largest_that_fits(step, model, batch) if alone else None
    raise TooLargeError(out_of_memory_line(config, device, fits))


# --- what is said -------------------------------------------------------------------------------


def announce(
    config: PretrainConfig[Any],
    plan: Plan,
    workers: int,
    steps: int,
    last_step: int,
    progress: Progress,
    ranks: Ranks,
) -> None:
    """What will be done, in numbers."""
    for line in plan.mixture.lines():
        log.info("%s", line)
    if ranks.is_first and (warning := rate_warning(config, plan.mixture)):
        log.warning("%s", warning)
    total = plan.batch_size * ranks.world
    usual = f"{clips_compared(config, plan) - 1} other clips are negatives of each clip"
    log.info(
        "batch: %d clips a device x %d ranks x %d accumulated = %d a step; %s",
        plan.batch_size, ranks.world, config.accumulation, total * config.accumulation,
        getattr(config.model, "told_apart_from", usual),
    )  # fmt: skip
    left_out = plan.clips_per_epoch - plan.batches_per_epoch * total
    log.info(
        "epoch: %d batches, %d clips left over each time; schedule: %d steps, from %d to %d now; "
        "%s, %d reading processes",
        plan.batches_per_epoch, left_out, steps, progress.step, last_step, ranks.device, workers,
    )  # fmt: skip


def clips_compared(config: PretrainConfig[Any], plan: Plan) -> int:
    """Clips of a batch that are told apart: those of all ranks, where they are gathered."""
    gathers = getattr(config.model, "gather", True)
    return plan.batch_size * (plan.world if gathers else 1)


def rate_warning(config: PretrainConfig[Any], mixture: Mixture) -> str:
    """A sentence where the window lasts shorter or longer than the method means; else empty."""
    meant = method_named(config.method).fps
    if meant is None or mixture.fps == meant:
        return ""
    frames = mixture.reads.frames
    return (
        f"{config.method}'s presets are made for {meant:g} fps, these shards have {mixture.fps:g}: "
        f"a window of {frames} frames lasts {frames / mixture.fps:.2f} s instead of "
        f"{frames / meant:.2f} s. Make shards with PROFILE={mixture.reads.profile} ({meant:g} "
        "fps), or mean it and set --model.frames"
    )


def finished_line(config: PretrainConfig[Any], facts: dict[str, Any]) -> str:
    """A finished run, and the ways on."""
    return (
        f"{config.folder} is finished (step {facts['step']}, {facts['epochs']:.1f} epochs); to "
        f"train further, name another RUN and --init {config.folder}"
    )


def disk_line(run: Run, error: OSError) -> str:
    """Where nothing can be written any more, what there is of the run, and how to go on."""
    saved = checkpoint.checkpoints(run.checkpoints)
    size = f", {saved[-1].stat().st_size / 1e6:.0f} MB each" if saved else ""
    last = f"its last checkpoint, {saved[-1].name}, is whole" if saved else "it has no checkpoint"
    free = shutil.disk_usage(run.folder).free
    return (
        f"{run.folder} cannot be written ({error.strerror}; {free / 1e6:.0f} MB are free): {last}. "
        f"Make room, also by a smaller --keep ({len(saved)} checkpoints are there{size}), or move "
        "the run to another disk; then the same command goes on"
    )


def out_of_memory_line(config: PretrainConfig[Any], device: torch.device, fits: int | None) -> str:
    """What to do instead.

    Args:
        config: of the run.
        device: whose memory is too small.
        fits: clips that were tried and fit, 0 if not even one does; None if nothing was tried.
    """
    size = config.clips_per_batch
    said = (
        f"{size} clips do not fit into the {memory_limit_bytes(device) / 2**30:.0f} GiB of {device}"
    )
    less = "" if config.uses_bf16(device) else "--precision bf16, or "
    other_ways = f"{less}a smaller preset"
    if fits == 0:
        return f"{said}, nor does a single one; try {other_ways}"
    smaller = fits or max(size // 2, 1)
    more = config.accumulation * -(-size // smaller)
    how = f"{fits} do (tried)" if fits else "half as many may"
    return (
        f"{said}; {how}: --batch-size {smaller} --accumulation {more} takes as many clips a step, "
        f"with fewer negatives each. Or try {other_ways}"
    )


def flop_per_clip(config: PretrainConfig[Any], device: torch.device) -> float | None:
    """Forward and backward of one clip; counted only where it is compared with a GPU's peak.

    None too where it cannot be counted: a method may ask for what the meta device does not have
    (values of tensors: RuntimeError), or for more than `input_shapes` names (AttributeError).
    """
    if device.type != "cuda":
        return None
    from train.describe import describe_config

    try:
        counted = describe_config(config.method, config.model)["gflop_per_clip"]
    except (RuntimeError, AttributeError) as error:
        log.warning("no MFU: the FLOPs of %s cannot be counted (%s)", config.method, error)
        return None
    return float(counted["forward_backward"]) * 1e9
