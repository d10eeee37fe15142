"""What GLCM can be asked to be: one frozen dataclass, and the presets.

Defaults are the paper's method where paper or methods §1.1 say so; every switch of the ablations
(paper Tables 5-9, methods §2) is a field.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from train.models.attention import Similarity
from train.models.audio import AUDIO_STRIDES, N_MELS
from train.models.padding import TemporalPadding
from train.models.video import STAGE_BLOCKS, Block
from train.objectives.global_local import SLICES_PER_FRAME, Directions, MultiPair

Objective = Literal["both", "g", "l"]
Encoders = Literal["both", "l_only"]
AttPool = Literal["attention", "avg"]

COSINE_TAU = 0.07


@dataclass(frozen=True)
class GlcmConfig:
    """The whole method: input, encoders, objectives."""

    frames: int = 32
    """T: frames of a clip, all of which the fast path sees; a multiple of n_slow."""
    crop: int = 112
    """Side of the square pictures in pixels."""
    n_slow: int = 8
    """Frames the slow path sees: every (frames / n_slow)-th, also in longer clips downstream."""
    objective: Objective = "both"
    """`both` terms, only L_`g`, or only L_`l` (Table 6). What a term left out would have trained
    is frozen; the attention map of `l` is trained through L_l alone."""
    w_g: float = 1.0
    """Weight of L_g, >= 0."""
    w_l: float = 1.0
    """Weight of L_l, >= 0."""
    encoders: Encoders = "both"
    """`both`, or `l_only`: the fast path serves both objectives (Table 6 d)."""
    block: Block = "hara"
    """Residual block of the visual encoders: `hara`, `sf` or `code`."""
    depth: int = 18
    """Layers of the visual encoders, 18 or 50."""
    width: int = 64
    """Channels of the slow path's and the audio encoder's stems; the last stage has 8 times that
    (32 times at depth 50)."""
    beta: int = 8
    """The fast path has width / beta channels."""
    strides: tuple[int, int, int, int] = (1, 2, 1, 1)
    """Spatial strides of res2 to res5, each 1 or 2; the grid is crop / (4 x their product)."""
    temporal_padding: TemporalPadding = "replicate"
    """What the convolutions of E_v^l and E_a find before the first and after the last frame and
    slice: the end itself again, or `zeros` as in the released code (the paper does not say).
    With zeros L_l needs no sound: `tiny` trained on demo clips of which each had *another* clip's
    sound reached 0.71 in 200 steps (chance ln 31 = 3.43), although every window was cut at a
    random time; with `replicate` it stayed at 3.43. With the right sound `replicate` reached
    1.73 on held-out talking heads in 300 steps, and 6.5 when their sounds were swapped."""
    grid_out: int | None = None
    """Side of the grid that cells and fast features are resized to before the losses; None keeps
    it as it is."""
    audio_stride: int = 1
    """1, or 4 for a mel with 12 slices a frame (120 a second at 10 frames a second)."""
    D_g: int = 512
    """Width of the global embeddings."""
    D_l: int = 64
    """Width of the local embeddings."""
    att_pool: AttPool = "attention"
    """Pooling of the fast features: the attention map, or `avg` over all cells."""
    att_tau: float = 1.0
    """Temperature of the attention map beside that of the logits, > 0."""
    detach_att: bool = False
    """Whether L_l sends no gradient through the attention map."""
    directions: Directions = "both"
    """Negatives of L_g: `both` directions, `a2v` (Eq. 1 literally), or the `code`'s."""
    pos_twice: bool = False
    """Whether both losses count the positives twice, as the released code does."""
    cross_video: bool = False
    """Whether other clips give negatives to L_l, as in the released code."""
    mask_shared: bool = True
    """Whether slices that two windows share are no negatives of L_l (window_M > 3)."""
    window_M: int = 3
    """M: audio slices a frame is compared with, odd (Table 9)."""
    multi_pair: MultiPair = "sum"
    """Several positives of a frame: `sum` of scores, or `avg_single` vector (Table 7)."""
    sim: Similarity = "dot"
    """Similarity of embeddings: `dot` as in the paper, or `cosine`."""
    tau: float | None = None
    """Temperature of the logits, > 0; None is 1 for `dot` and 0.07 for `cosine`."""
    gather: bool = True
    """Whether clips of other ranks are negatives of L_g."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built or trained, saying what could."""
        object.__setattr__(self, "strides", tuple(self.strides))  # JSON has lists only
        self._check_choices()
        self._check_sizes()
        self._check_losses()

    def _check_choices(self) -> None:
        choices = {
            "objective": get_args(Objective),
            "encoders": get_args(Encoders),
            "att_pool": get_args(AttPool),
            "block": get_args(Block),
            "depth": tuple(STAGE_BLOCKS),
            "audio_stride": AUDIO_STRIDES,
            "temporal_padding": get_args(TemporalPadding),
            "directions": get_args(Directions),
            "multi_pair": get_args(MultiPair),
            "sim": get_args(Similarity),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {known}")
        if self.block == "code" and self.depth != 18:
            raise ValueError("block 'code' exists at depth 18 only; use 'hara' or 'sf'")

    def _check_sizes(self) -> None:
        for name in ("frames", "n_slow", "crop", "width", "beta", "D_g", "D_l"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.frames % self.n_slow:
            raise ValueError(
                f"frames is {self.frames} and n_slow {self.n_slow}; every k-th frame goes to the "
                "slow path, so frames must be a multiple of n_slow (GRID: 28 and 7)"
            )
        if self.width % self.beta:
            raise ValueError(f"width {self.width} cannot be divided by beta {self.beta}")
        if len(self.strides) != 4 or not set(self.strides) <= {1, 2}:
            raise ValueError(f"strides is {self.strides}; expected four numbers, each 1 or 2")
        if self.grid_out is not None and self.grid_out < 1:
            raise ValueError(f"grid_out is {self.grid_out}; expected 1 or more, or None")

    def _check_losses(self) -> None:
        if self.window_M < 1 or self.window_M % 2 == 0:
            raise ValueError(f"window_M is {self.window_M}; expected 1, 3, 5 or 7 (odd)")
        for name in ("tau", "att_tau"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; expected a temperature above 0")
        if min(self.w_g, self.w_l) < 0 or self.weight_g + self.weight_l == 0:
            raise ValueError(
                f"w_g is {self.w_g}, w_l {self.w_l} with objective {self.objective!r}; expected "
                "weights of 0 or more, and above 0 for a term that is in use"
            )

    @property
    def weight_g(self) -> float:
        """Weight of L_g in the loss."""
        return self.w_g if self.objective in ("both", "g") else 0.0

    @property
    def weight_l(self) -> float:
        """Weight of L_l in the loss."""
        return self.w_l if self.objective in ("both", "l") else 0.0

    @property
    def temperature(self) -> float:
        """`tau`, or the default of the similarity."""
        if self.tau is not None:
            return self.tau
        return COSINE_TAU if self.sim == "cosine" else 1.0

    @property
    def slow_step(self) -> int:
        """The slow path sees every slow_step-th frame."""
        return self.frames // self.n_slow

    @property
    def slices_per_frame(self) -> int:
        """Mel slices that belong to one frame at the input."""
        return SLICES_PER_FRAME * self.audio_stride

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What one clip gives the module, without the batch dimension."""
        return {
            "video": (3, self.frames, self.crop, self.crop),
            "mel": (N_MELS, self.slices_per_frame * self.frames),
        }


_R18 = GlcmConfig()
_TINY = GlcmConfig(frames=16, crop=64, n_slow=4, width=16, D_g=128, D_l=32, tau=3.0)

PRESETS: dict[str, GlcmConfig] = {
    "glcm_r18": _R18,
    "glcm_r18_grid": replace(_R18, frames=28, n_slow=7),
    "glcm_r50": replace(_R18, depth=50, block="sf"),
    "glcm_code": GlcmConfig(
        n_slow=4,
        block="code",
        temporal_padding="zeros",
        strides=(1, 2, 2, 1),
        directions="code",
        pos_twice=True,
        cross_video=True,
        mask_shared=False,
        gather=False,
    ),
    "exact16": replace(_R18, crop=128, block="sf"),
    "tiny": _TINY,
    "tiny_grid": replace(_TINY, frames=28, n_slow=7),
}
"""`glcm_r18` is the paper's method (default column of methods §1.1), `glcm_code` the released
code's shapes and losses, `exact16` reaches the paper's 16 x 16 grid. `tiny` fits two CPU cores and
every clip of 1.6 s, GRID's 3 s too; the `_grid` ones use nearly all of GRID's 30 frames. The dot
products of `tiny` are divided by 3: with raw ones, on demo clips, 8 a batch, L_l was still at
chance (3.42) after 200 steps (the gradient was 3 to 24 times the clipping norm, most of it from
L_g); with cosines over 0.07, on the planted corpus, 8 a batch, all embeddings became one and L_g
stayed at chance for 300 steps; of 16 clips at half the rate it learned, but held out L_l was 2.43
after them, where a third of the dot product had 1.92. On GRID, 16 a batch, L_l left its chance of
4.01 after 85 steps with them, and after 180 with cosines."""
