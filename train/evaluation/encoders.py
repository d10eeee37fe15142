"""A checkpoint, or random weights -> features of clips; and pooling them over place and time.

from train import load_checkpoint
encoders = load_checkpoint("runs/first")
features = encoders.features(video, sound)   # fg, fl, fa, att of `Glcm.features`
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.format import MEL_SLICES_PER_FRAME, N_MELS
from train import checkpoint, exported
from train.config import from_dict
from train.cuts import Sound, reads_of, sound_of
from train.elsewhere import local
from train.errors import TrainError, UsageError
from train.evaluation.task import CellPool, Settings
from train.methods import MEMORY, method_named, preset_named
from train.models.attention import full_precision, pool_cells, resize_attention

SOUND = "fa"
PICTURES = "fv"
"""Of methods with a single visual path, which stands for both of Glcm's."""
POOLS: dict[CellPool, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "avg": functional.adaptive_avg_pool2d,
    "max": functional.adaptive_max_pool2d,
}
POOLS_IN_TIME: dict[CellPool, Callable[[Tensor, int], Tensor]] = {
    "avg": functional.adaptive_avg_pool1d,
    "max": functional.adaptive_max_pool1d,
}
BRANCHES = {"g": ("fg",), "l": ("fl",)}


@dataclass
class Encoders:
    """A method's module as a source of features, on the CPU until moved."""

    module: nn.Module
    config: Any
    """The method's own."""
    method: str
    preset: str
    origin: dict[str, Any] | None
    """path, sha256, method, preset, step and shards of the checkpoint; None: random weights."""

    @property
    def frames(self) -> int:
        """The window it was made for: its `window_frames`, if it does not see all of them."""
        return int(getattr(self.config, "window_frames", self.config.frames))

    def window(self, fps: float, with_pictures: bool) -> int:
        """Frames of the window it was made for, by a clock of `fps`.

        Without pictures it is the method's `sound_seconds`, if it says so.
        """
        seconds: float | None = getattr(self.config, "sound_seconds", None)
        return self.frames if with_pictures or seconds is None else round(seconds * fps)

    @property
    def crop(self) -> int:
        """Side of the pictures it sees."""
        return int(self.config.crop)

    @property
    def sound(self) -> Sound:
        """What its audio encoder hears."""
        return sound_of(self.config)

    def _check(self, sound: Tensor | None) -> None:
        """Refuse mel where a waveform is heard, and the other way round."""
        channels = N_MELS if self.sound == "mel" else self.sound.channels
        if sound is not None and (sound.ndim != 3 or sound.shape[1] != channels):
            raise ValueError(
                f"sound is {tuple(sound.shape)}; {self.method} hears {_sound_shape(self.sound)}"
            )

    @property
    def profile(self) -> str:
        """The pipeline's profile that its method reads."""
        return reads_of(self.config).profile

    @property
    def channels(self) -> dict[str, int]:
        """C of each feature."""
        return dict(self.module.feature_channels)  # type: ignore[arg-type]

    def wanted(self, settings: Settings) -> dict[str, int]:
        """The features that a task uses and the lengths of their vectors, as they are joined.

        Raises:
            UsageError: the encoders do not have them.
        """
        channels = self.channels
        if not settings.layer:
            return wanted_features(channels, settings)
        further: dict[str, int] = getattr(self.module, "further_channels", {})
        if settings.layer not in further:
            raise UsageError(
                f"layer is {settings.layer!r}; {self.method} has "
                f"{', '.join(further) or 'none besides its features'}"
            )
        return wanted_features({settings.layer: further[settings.layer]}, settings)

    def looked_at(
        self, video: Tensor | None, sound: Tensor | None, settings: Settings
    ) -> dict[str, Tensor]:
        """`features`, and the layer that the settings ask for."""
        return self.features(video, sound, tuple(self.wanted(settings)) if settings.layer else ())

    def features(
        self, video: Tensor | None, sound: Tensor | None, wanted: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """Unpooled features before the projections (methods §1.9).

        Args:
            video: float (B, 3, T, H, W), normalised; None where only sound is used.
            sound: float (B, 80, 3T) of mel, or for methods that hear waveforms (see `sound`)
                (B, channels, samples); None where only pictures are used.
            wanted: what may be left out of the computation otherwise; all for an empty one.

        Returns:
            For GLCM: fg (B, C_g, T', H, W), fl (B, C_l, T, H, W), fa (B, C_a, 3T) and the
            attention map att (B, H, W); what needs a missing input is left out.
        """
        features: Any = self.module.features
        self._check(sound)
        if self.sound == "mel" or sound is None:
            clips = _Clips(video, sound, None)
        else:
            clips = _Clips(video, None, sound.unsqueeze(1))
        found: dict[str, Tensor] = features(clips, wanted) if wanted else features(clips)
        return found


def _sound_shape(sound: Sound) -> str:
    """In words."""
    if sound == "mel":
        return f"mel (B, {N_MELS}, {MEL_SLICES_PER_FRAME} T)"
    return f"a waveform (B, {sound.channels}, samples) at {sound.rate_hz} Hz"


@dataclass(frozen=True)
class _Clips:
    video: Tensor | None
    mel: Tensor | None
    wave: Tensor | None


def load_checkpoint(path: str | Path) -> Encoders:
    """The encoders of a checkpoint, in evaluation mode.

    Args:
        path: a checkpoint, a run's folder, of which `best` is taken, or else the newest, or a
            folder that `python -m train export` wrote; also on a store.

    Raises:
        UsageError: there is no such checkpoint, or its method gives no features.
        DamagedCheckpointError: it cannot be read.
    """
    path = local(Path(path))
    if exported.is_exported(path):
        file = path / exported.WEIGHTS
        facts, weights, sha256 = exported.read(path)
    else:
        file = checkpoint.chosen(path)
        saved = checkpoint.load(file)
        facts, weights = {**saved["config"], "step": int(saved["step"])}, saved["model"]
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    method = method_named(facts["method"])
    config = from_dict(method.config, facts["model"])
    module = method.module(config)
    _load_weights(module, without_memory(weights), file)
    _require_features(module, facts["method"])
    about = {name: facts[name] for name in ("method", "preset", "step", "shards")}
    origin = {"path": str(file), "sha256": sha256, **about}
    return Encoders(module.eval(), config, facts["method"], facts["preset"], origin)


def without_memory(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights without what only training needs: banks, queues, momentum encoders."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(MEMORY)}


def _load_weights(module: nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    try:
        own = without_memory(module.state_dict())
        module.load_state_dict({**module.state_dict(), **weights})
        if own.keys() - weights.keys():
            raise RuntimeError(f"missing {', '.join(sorted(own.keys() - weights.keys()))}")
    except RuntimeError as error:
        said = " ".join(str(error).split())[:300]
        raise checkpoint.DamagedCheckpointError(
            f"the weights in {file} are not those that its config describes ({said})"
        ) from error


def from_scratch(method: str, preset: str, seed: int) -> Encoders:
    """Random weights, the same for the same seed.

    Raises:
        UsageError: unknown method or preset, or the method gives no features.
    """
    entry = method_named(method)
    name = preset or entry.default_preset
    config = preset_named(method, name)
    before = torch.get_rng_state()
    torch.manual_seed(seed)
    module = entry.module(config)
    torch.set_rng_state(before)
    _require_features(module, method)
    return Encoders(module.eval(), config, method, name, None)


def _require_features(module: nn.Module, method: str) -> None:
    if not hasattr(module, "features") or not getattr(module, "feature_channels", None):
        raise UsageError(
            f"the method {method} has no `features` with `feature_channels` (see train.methods), "
            "so nothing can be evaluated; name a checkpoint of another method"
        )


# --- pooling ------------------------------------------------------------------------------------


def wanted_features(channels: dict[str, int], settings: Settings) -> dict[str, int]:
    """The features that a task uses and the lengths of their vectors, as they are joined.

    Raises:
        UsageError: the encoders do not have them.
    """
    visual = [name for name in channels if name != SOUND]
    if settings.features != "both" and visual != [PICTURES]:
        visual = list(BRANCHES[settings.features])
    names = visual if settings.uses_pictures else []
    names = [*names, *([SOUND] if "A" in settings.modality and not settings.layer else [])]
    missing = [name for name in names if name not in channels]
    if missing or not names:
        raise UsageError(
            f"the task uses the features {', '.join(names) or 'of pictures'}, these encoders have "
            f"{', '.join(channels)}; choose other --features or --modality, or another checkpoint"
        )
    times, rows, columns = settings.cells
    cells = {name: times if name == SOUND else times * rows * columns for name in names}
    return {name: cells[name] * channels[name] for name in names}


def pooled(found: dict[str, Tensor], names: list[str], settings: Settings) -> dict[str, Tensor]:
    """Features averaged over place and time, or in `cells` of them: float32 (B, C x cells) each."""
    return {name: over_time(over_frames(found, name, settings), settings) for name in names}


def over_time(sequence: Tensor, settings: Settings) -> Tensor:
    """(B, T, C) pooled in parts of time, side by side: (B, parts x C)."""
    pool = POOLS_IN_TIME[settings.cell_pool]
    return pool(sequence.transpose(1, 2), settings.cells[0]).flatten(1)


def require_finite(named: dict[str, npt.NDArray[Any]], what: str = "feature") -> None:
    """Refuse what a diverged checkpoint gives.

    Args:
        named: values by name.
        what: they are.

    Raises:
        TrainError: names it.
    """
    for name, values in named.items():
        if not np.isfinite(values).all():
            raise TrainError(f"the {what} {name} is not finite for some clips; is the checkpoint "
                             "of a run that diverged? `python -m train report` shows")  # fmt: skip


def over_frames(found: dict[str, Tensor], name: str, settings: Settings) -> Tensor:
    """A feature averaged over the grid only, or in rows and columns of it, in its own time steps.

    Returns:
        float32 (B, T', C), or (B, T', C x rows x columns).
    """
    feature = found[name]
    with full_precision(feature):
        if feature.ndim == 3:  # sound
            return feature.float().transpose(1, 2)
        if settings.pooling == "full_attention":
            return pool_cells(feature, map_on(found["att"], feature))
        frames = feature.float().transpose(1, 2)
        _require_cells(name, tuple(frames.shape[-2:]), settings)
        pool = POOLS[settings.cell_pool]
        return pool(frames.flatten(0, 1), settings.cells[1:]).view(*frames.shape[:2], -1)


def _require_cells(name: str, grid: tuple[int, ...], settings: Settings) -> None:
    """Refuse more parts than a map has cells: copies would only cost.

    Raises:
        UsageError: says both.
    """
    rows, columns = settings.cells[1:]
    if rows > grid[0] or columns > grid[1]:
        raise UsageError(
            f"cells asks for {rows} x {columns} parts of {name}, which has {grid[0]} x {grid[1]} "
            "places; give fewer --cells, or an earlier --layer"
        )


def map_on(att: Tensor, feature: Tensor) -> Tensor:
    """An attention map (B, H, W) on the grid of a feature: (B, H' W'), rows sum to 1."""
    height, width = feature.shape[-2:]
    same = att.shape[-2:] == (height, width)
    return (att if same else resize_attention(att, (height, width))).flatten(1)


def in_time(sequence: Tensor, frames: int) -> Tensor:
    """(B, T', C) with one entry a frame: fewer are repeated, as the slow path's, more averaged.

    The paper's "spatial average pooling before concatenation to preserve the temporal dimension"
    (§4.1); slow features stand for the frames up to the next one (methods §7).
    """
    steps = sequence.shape[1]
    if steps > frames:
        several = sequence.reshape(len(sequence), frames, steps // frames, -1)
        return several.mean(dim=2)
    each = -(-frames // steps)
    return sequence.repeat_interleave(each, dim=1)[:, :frames]
