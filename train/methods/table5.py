"""What the objectives of Table 5 share: encoder, input, recipe (GLCM paper Table 5, methods §6).

All of them train the same network on the same clips: the 3D-ResNet-18 that is GLCM's E_v^l, at full
width (beta = 1), with 16 frames of 112 pixels at 10 frames a second; downstream tasks use its
features before any head. The paper gives no other settings of its own implementations; those of the
recipe are GLCM's.

    @dataclass(frozen=True)
    class MocoConfig(EncoderConfig):
        temperature: float = 0.07

        def __post_init__(self) -> None:
            super().__post_init__()

    class Moco(VideoMethod):
        def __init__(self, config, gather=keep_local):
            super().__init__(config)  # self.encoder, features, feature_channels
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol, get_args

from torch import Tensor, nn

from train.augment import AugmentConfig
from train.models.padding import TemporalPadding
from train.models.video import STAGE_BLOCKS, Block, VideoResNet

FPS = 10
"""Pictures a second that the presets' windows are made for."""

RECIPE: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3, "epochs": 100}
"""Fields of `train.config.PretrainConfig`, as GLCM is trained; batch 32, and 4 with presets
named tiny, is what that has itself."""

VIEWS_RECIPE: dict[str, Any] = {
    **RECIPE,
    "augment": AugmentConfig(crop_area=(0.2, 1.0), colour_jitter=0.4, hue=0.4),
}
"""For contrasts of two views, which colours would solve: the augmentation of MoCo's released
code."""


@dataclass(frozen=True)
class EncoderConfig:
    """Input and encoder; the configs of the methods add their own fields."""

    frames: int = 16
    """T: pictures of a view."""
    crop: int = 112
    """Side of the square pictures in pixels."""
    width: int = 64
    """Channels of the stem; the last stage has 8 times that (32 times at depth 50)."""
    depth: int = 18
    """Layers of the encoder, 18 or 50."""
    block: Block = "hara"
    """Residual block of the encoder: `hara`, `sf` or `code`."""
    strides: tuple[int, int, int, int] = (1, 2, 1, 1)
    """Spatial strides of res2 to res5, each 1 or 2; the grid is crop / (4 x their product)."""
    temporal_padding: TemporalPadding = "replicate"
    """What convolutions find before the first and after the last picture: `replicate` or
    `zeros`."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built, saying what could."""
        object.__setattr__(self, "strides", tuple(self.strides))  # JSON has lists only
        choices = {
            "depth": tuple(STAGE_BLOCKS),
            "block": get_args(Block),
            "temporal_padding": get_args(TemporalPadding),
        }
        for name, known in choices.items():
            require_one_of(name, getattr(self, name), known)
        if self.block == "code" and self.depth != 18:
            raise ValueError("block 'code' exists at depth 18 only; use 'hara' or 'sf'")
        for name in ("frames", "crop", "width"):
            require_at_least(name, getattr(self, name), 1)
        if len(self.strides) != 4 or not set(self.strides) <= {1, 2}:
            raise ValueError(f"strides is {self.strides}; expected four numbers, each 1 or 2")

    def views(self, count: int) -> dict[str, tuple[int, ...]]:
        """`input_shapes` of a method that sees `count` views of each clip and no sound."""
        one = (3, self.frames, self.crop, self.crop)
        return {"video": one if count == 1 else (count, *one)}


def require_at_least(name: str, value: float, least: float) -> None:
    """Refuse a field of a config that is too small.

    Raises:
        ValueError: with a sentence.
    """
    if not value >= least:
        raise ValueError(f"{name} is {value}; expected {least} or more")


def require_above(name: str, value: float, bound: float) -> None:
    """Refuse a field of a config that is not above a bound.

    Raises:
        ValueError: with a sentence.
    """
    if not value > bound:
        raise ValueError(f"{name} is {value}; expected more than {bound}")


def require_one_of(name: str, value: object, known: Collection[object]) -> None:
    """Refuse a field of a config that is none of its choices.

    Raises:
        ValueError: with a sentence.
    """
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected one of {tuple(known)}")


def video_encoder(config: EncoderConfig) -> VideoResNet:
    """E_v^l of GLCM at full width: (B, 3, T, H, W) -> (B, 8 x width, T, H/s, W/s)."""
    return VideoResNet(
        "fast",
        depth=config.depth,
        width=config.width,
        block=config.block,
        strides=config.strides,
        temporal_padding=config.temporal_padding,
    )


class Pictures(Protocol):
    """Clips of which a method looks at the pictures only."""

    @property
    def video(self) -> Tensor | None:
        """Float (B, 3, T, H, W), normalised, of any length T; None where only sound is used."""


def seen(encoder: nn.Module, video: Tensor | None, wanted: Collection[str]) -> dict[str, Tensor]:
    """The wanted ones of `fv`, the encoder's map, and its stages, if it has any."""
    if video is None:
        return {}
    if not isinstance(encoder, VideoResNet):
        return {"fv": encoder(video)} if "fv" in wanted else {}
    stages = encoder.stages(video)
    return {name: x for name, x in {**stages, "fv": stages["res5"]}.items() if name in wanted}


def stage_channels(encoder: nn.Module) -> dict[str, int]:
    """C of the maps that `seen` gives besides `fv`."""
    return encoder.stage_channels if isinstance(encoder, VideoResNet) else {}


class VideoMethod(nn.Module):
    """A method whose features are those of one visual encoder.

    Attributes:
        encoder: what is trained for, and used downstream.
    """

    def __init__(self, config: EncoderConfig) -> None:
        """Build the encoder."""
        super().__init__()
        self.encoder = video_encoder(config)

    @property
    def feature_channels(self) -> dict[str, int]:
        """C of `features`."""
        return {"fv": self.encoder.out_channels}

    @property
    def further_channels(self) -> dict[str, int]:
        """C of the maps that `features` gives only by name: the encoder's stages."""
        return stage_channels(self.encoder)

    def features(self, clips: Pictures, wanted: Collection[str] = ("fv",)) -> dict[str, Tensor]:
        """What downstream tasks use: the encoder's features before any head, unpooled.

        Returns:
            fv: (B, C, T, H', W'); absent without pictures.
            res2 ... res5: the encoder's stages, if wanted.
        """
        return seen(self.encoder, clips.video, wanted)
