"""On the device: random crop, flip, grayscale, colour jitter, normalisation, SpecAugment.

One draw a clip, the same for all its frames. Draws come from (seed, batch number) alone and each
rank takes its rows of them, so a run repeats itself exactly, and two ranks do to their clips what
one rank with twice the batch would do.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from train.batch import Batch
from train.plan import seed_of

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)
YIQ = (LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
"""From red, green, blue to luminance and two chrominances (NTSC)."""
PCM_16 = 32768
"""Full scale of 16-bit samples."""
PLAIN_SIDE = 7 / 8
"""Side of a plain or centre crop, over the short side: 112 of 128 pixels, as in the paper."""
N_DRAWS = 14
"""Random numbers a clip; constant, so that one option does not shift the others' draws."""


@dataclass(frozen=True)
class AugmentConfig:
    """What happens to a training batch on its way to the model."""

    resized_crop: bool = True
    """Crops of random area and aspect; False: 7/8 of the short side at a random place."""
    crop_area: tuple[float, float] = (0.5, 1.0)
    """Area of a resized crop over the square's, smallest and largest, 0 .. 1."""
    crop_aspect: tuple[float, float] = (0.75, 1.333)
    """Width over height of a resized crop, smallest and largest."""
    flip: float = 0.5
    """Probability of a mirrored clip."""
    grayscale: float = 0.2
    """Probability of a clip without colour."""
    colour_jitter: float = 0.0
    """Brightness, contrast and saturation change by up to this factor, 0 .. 1; 0 is off."""
    hue: float = 0.0
    """Hue turns by up to this part of the colour circle, 0 .. 0.5; 0 is off."""
    volume: float = 0.0
    """Waveforms become louder or softer by up to this factor, 0 .. 1; 0 is off."""
    mask_bands: int = 0
    """SpecAugment: at most so many mel bands are replaced by the clip's mean; 0 is off."""
    mask_slices: int = 0
    """SpecAugment: at most so many mel slices are replaced by the clip's mean; 0 is off."""

    def __post_init__(self) -> None:
        """Ranges."""
        low, high = self.crop_area
        if not 0 < low <= high <= 1 or not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise ValueError(
                f"crop_area is {self.crop_area} and crop_aspect {self.crop_aspect}; expected the "
                "smallest and the largest, areas above 0 and up to 1, aspects above 0"
            )
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is {self.hue}; expected 0 to 0.5 of the colour circle")
        for name in ("flip", "grayscale", "colour_jitter", "volume"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        for name in ("mask_bands", "mask_slices"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")


@dataclass(frozen=True)
class Augment:
    """Batches as loaded -> batches for the model, for one rank of a run."""

    config: AugmentConfig
    crop: int
    """Pixels of the square the model sees."""
    seed: int
    world: int = 1
    rank: int = 0

    def __call__(self, batch: Batch, number: int) -> Batch:
        """Augment the batch with this number in the run."""
        video, _ = self.clips(_apart(batch.video, batch.views), None, number, batch.views)
        assert video is not None
        _, mel = self.clips(None, batch.mel, number)
        wave = None if batch.wave is None else self.waveforms(batch.wave, number)
        return replace(batch, video=_together(video, batch.views), mel=mel, wave=wave)

    def clips(
        self, video: Tensor | None, mel: Tensor | None, number: int, views: int = 1
    ) -> tuple[Tensor | None, Tensor | None]:
        """Augment pictures (B V, T, S, S, 3) and mel (B, 80, K); None stays None.

        Returns:
            Float pictures (B V, 3, T, crop, crop), normalised, and float mel.
        """
        one = video if video is not None else mel
        if one is None:
            return None, None
        draws = self._draws(len(one), number, views).to(one.device, non_blocking=True)
        if video is not None:
            boxes = random_boxes(draws[:, :4], self.config)
            video = crop_resize(video, boxes, draws[:, 4] < self.config.flip, self.crop)
            video = _turned(_recolour(video, draws[:, 5:9], self.config), draws[:, 12], self.config)
            video = normalise(video)
        if mel is not None:
            mel = _spec_augment(mel.float(), draws[:, 9:12], self.config)
        return video, mel

    def waveforms(self, wave: Tensor, number: int) -> Tensor:
        """int16 (B, ...) -> float32 in -1 .. 1, all of a clip louder or softer alike."""
        louder = 1 + self.config.volume * (2 * self._draws(len(wave), number)[:, 13] - 1)
        factors = (louder / PCM_16).to(wave.device, non_blocking=True)
        return wave.float() * factors.view(-1, *[1] * (wave.ndim - 1))

    def _draws(self, clips: int, number: int, views: int = 1) -> Tensor:
        """(clips, N_DRAWS) uniform numbers of this rank, in page-locked memory for a GPU."""
        what = "augment" if views == 1 else "augment views"
        generator = torch.Generator().manual_seed(seed_of(self.seed, number, what) >> 1)
        everyone = torch.rand(self.world * clips, N_DRAWS, generator=generator)
        own = everyone[self.rank * clips : (self.rank + 1) * clips]
        return own.pin_memory() if torch.cuda.is_available() else own


def centre(batch: Batch, crop: int) -> Batch:
    """What evaluation sees: the centre crop, nothing random."""
    video = centre_pictures(_apart(batch.video, batch.views), crop)
    return replace(
        batch,
        video=_together(video, batch.views),
        mel=None if batch.mel is None else batch.mel.float(),
        wave=None if batch.wave is None else batch.wave.float() / PCM_16,
    )


def _apart(video: Tensor, views: int) -> Tensor:
    """(B, V T, S, S, 3) -> (B V, T, S, S, 3)."""
    return video if views == 1 else video.reshape(len(video) * views, -1, *video.shape[2:])


def _together(video: Tensor, views: int) -> Tensor:
    """(B V, 3, T, H, W) -> (B, V, 3, T, H, W) where there are several views."""
    return video if views == 1 else video.reshape(-1, views, *video.shape[1:])


def centre_pictures(video: Tensor, crop: int) -> Tensor:
    """The centre crop of uint8 (B, T, S, S, 3), normalised: float (B, 3, T, crop, crop)."""
    margin = (1 - PLAIN_SIDE) / 2
    box = torch.tensor([margin, margin, PLAIN_SIDE, PLAIN_SIDE], device=video.device)
    still = torch.zeros(len(video), dtype=torch.bool, device=video.device)
    return normalise(crop_resize(video, box.repeat(len(video), 1), still, crop))


def random_boxes(draws: Tensor, config: AugmentConfig) -> Tensor:
    """(B, 4): left, top, width, height over the square's side, from (B, 4) uniform draws."""
    if config.resized_crop:
        low, high = config.crop_area
        area = low + (high - low) * draws[:, 0]
        first, last = _logarithms(config.crop_aspect)
        aspect = (first + (last - first) * draws[:, 1]).exp()
        width = (area * aspect).sqrt().clamp(max=1)
        height = (area / aspect).sqrt().clamp(max=1)
    else:
        width = height = torch.full_like(draws[:, 0], PLAIN_SIDE)
    return torch.stack([draws[:, 2] * (1 - width), draws[:, 3] * (1 - height), width, height], 1)


@lru_cache
def _logarithms(values: tuple[float, ...]) -> list[float]:
    logarithms: list[float] = torch.tensor(values).log().tolist()
    return logarithms


def crop_resize(video: Tensor, boxes: Tensor, flip: Tensor, crop: int) -> Tensor:
    """Cut a box out of every clip and scale it, bilinearly, in one launch.

    Args:
        video: uint8 (B, T, S, S, 3).
        boxes: (B, 4), see `random_boxes`; corners are moved to whole pixels, so that a box of
            `crop` pixels gives the stored pixels themselves.
        flip: bool (B,), mirrored left to right.
        crop: side of the result, pixels.

    Returns:
        float (B, 3, T, crop, crop) in 0 .. 255.
    """
    clips, frames, side = video.shape[:3]
    left, top, width, height = (boxes * side).round().unbind(1)
    zero = torch.zeros_like(left)
    across = torch.where(flip, -width, width)
    rows = [
        torch.stack([across, zero, 2 * left + width - side], 1),
        torch.stack([zero, height, 2 * top + height - side], 1),
    ]
    grid = functional.affine_grid(
        torch.stack(rows, 1) / side, [clips, 1, crop, crop], align_corners=False
    )
    # All frames of a clip share its grid when they stand where channels do.
    flat = video.permute(0, 1, 4, 2, 3).reshape(clips, frames * 3, side, side).float()
    cut = functional.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    return cut.view(clips, frames, 3, crop, crop).transpose(1, 2)


def normalise(video: Tensor) -> Tensor:
    """0 .. 255 -> zero mean and unit variance over ImageNet; (B, 3, T, H, W)."""
    mean, std = (_per_channel(v, video.device) * 255 for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (video - mean) / std


@lru_cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A constant of each colour, (3, 1, 1, 1), sent to a device once.

    Sending it makes the host wait until a GPU has done all it was given before.
    """
    return torch.tensor(values, device=device).view(3, 1, 1, 1)


def _recolour(video: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """Grayscale for some clips; jitter of brightness, contrast and saturation for all."""
    if not config.grayscale and not config.colour_jitter:
        return video
    luma = (video * _per_channel(LUMA, video.device)).sum(1, keepdim=True)
    factors = 1 + config.colour_jitter * (2 * draws[:, 1:] - 1)
    brightness, contrast, saturation = factors.T.reshape(3, -1, 1, 1, 1, 1)
    colour = torch.where(draws[:, 0].view(-1, 1, 1, 1, 1) < config.grayscale, 0.0, saturation)
    video = luma + colour * (video - luma)
    if config.colour_jitter:
        mean = luma.mean((1, 2, 3, 4), keepdim=True)
        video = (brightness * (mean + contrast * (video - mean))).clamp(0, 255)
    return video


@lru_cache
def _yiq(device: torch.device) -> tuple[Tensor, Tensor]:
    """To YIQ and back, sent to a device once."""
    there = torch.tensor(YIQ)
    return there.to(device), torch.linalg.inv(there).to(device)


def _turned(video: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """Hue, turned about the grey axis: chrominance rotates in YIQ, luminance stays."""
    if not config.hue:
        return video
    angle = 2 * math.pi * config.hue * (2 * draws - 1)
    to_yiq, from_yiq = _yiq(video.device)
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = (zero + 1, zero, zero, zero, cosine, -sine, zero, sine, cosine)
    turn = torch.stack(rows, 1).view(-1, 3, 3)
    change = from_yiq @ turn @ to_yiq
    return torch.einsum("bij,bjthw->bithw", change, video).clamp(0, 255)


def _spec_augment(mel: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """One band mask and one time mask a clip, both as long as the same draw says."""
    for dim, longest, place in ((1, config.mask_bands, 1), (2, config.mask_slices, 2)):
        if longest:
            count = mel.shape[dim]
            length = (draws[:, :1] * (min(longest, count) + 1)).floor()
            start = (draws[:, place : place + 1] * (count - length + 1)).floor()
            number = torch.arange(count, device=mel.device)
            masked = (number >= start) & (number < start + length)
            mean = mel.mean((1, 2), keepdim=True)
            mel = torch.where(masked.unsqueeze(3 - dim), mean, mel)
    return mel
