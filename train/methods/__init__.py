"""What is learned: `METHODS`, a plain dict from a method's name to its config, module and presets.

To add a method, write `train/methods/NAME.py` with a frozen config dataclass and an `nn.Module`
built from it, and add its line to `METHODS`. A private one needs no fork: a package named in
GLAV_PLUGINS adds its own entry to the dict.

A config has `frames` (pictures of a view), `crop` (pixels) and `input_shapes` (what one clip gives
the module: video, mel, wave), and where one window with its mel is not what is wanted `reads`, a
`train.cuts.Reads`, with `input_numbers` (widths of the numbers that its cuts carry). `sound` is
"wave" where the audio encoder hears waveforms instead of mel; `told_apart_from`, where there is
one, is a sentence for the log on a clip's negatives, if they are not the others of its batch.

A module is built as ``module(config, gather)`` and called as ``module(batch)``: it returns a dict
of scalars: `loss` first, then its terms and facts to log. ``module.features(clips)`` gives what
downstream tasks use, by the names in ``module.feature_channels``: maps (B, C, T', H', W') of
pictures, and `fa` (B, C, K) of sound; what it is not given is left out. Maps that it gives only by
name, such as the stages of a network, are in ``module.further_channels``. The tasks ave, avsync,
av_retrieval and localization ask for `segment_attention`, `in_time`, `loss_g`, `loss_l` and
`attention` as Glcm has them.
``module.prepare(facts)``, where there is one, is called before training with `train.cuts.RunFacts`.
What only training needs, such as banks, queues and momentum encoders, lies below the submodule
`memory`: checkpoints hold it, evaluation leaves it out, and a run that starts from another one
(--init) takes of it what ``memory.carried_over`` names, if the clips are the same.
``module.with_controls(batch)``, where there is one, gives what held-out evaluation records instead
of ``module(batch)``: the same, and for a fact NAME its controls NAME_swapped (each clip with
another clip's sound), NAME_gap (swapped less right), NAME_shifted (its own sound out of time) and
NAME_chance (what no knowledge gives). `train.facts` knows of which facts more, and of which less,
is better.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from train.errors import UsageError
from train.methods import (
    avid,
    avid_cma,
    avid_config,
    avslowfast,
    avts,
    coattention,
    coattention_config,
    cpc,
    dpc,
    glcm,
    moco,
    table5,
    tempssl,
    vdim,
)

MEMORY = "memory."
"""What the names of a module's state begin with that only training needs."""


@dataclass(frozen=True)
class MethodEntry:
    """A line of `METHODS`."""

    config: type[Any]
    """The frozen dataclass."""
    module: type[nn.Module]
    """Built as module(config, gather)."""
    presets: Mapping[str, Any]
    """Named configs; the first one is the default."""
    fps: float | None = None
    """Frames a second that the presets' windows are made for; None suits any."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """How the method is trained where no flag says otherwise: fields of PretrainConfig."""
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The same for single presets; they go before `recipe`."""

    @property
    def default_preset(self) -> str:
        """The preset of a command that names none."""
        return next(iter(self.presets))

    def recipe_of(self, preset: str) -> dict[str, Any]:
        """Fields of PretrainConfig by which a preset is trained."""
        return {**self.recipe, **self.recipes.get(preset, {})}


METHODS: dict[str, MethodEntry] = {
    "glcm": MethodEntry(glcm.GlcmConfig, glcm.Glcm, glcm.PRESETS, fps=10),
    "avid": MethodEntry(
        avid.AvidConfig, avid.Avid, avid.PRESETS, 16, avid_config.RECIPE, avid_config.RECIPES
    ),
    "avid_cma": MethodEntry(
        avid_cma.AvidCmaConfig, avid_cma.AvidCma, avid_cma.CMA_PRESETS, 16,
        avid_config.CMA_RECIPE, avid_config.CMA_RECIPES,
    ),
    "tempssl": MethodEntry(
        tempssl.TempSslConfig, tempssl.TempSsl, tempssl.PRESETS, 30, tempssl.RECIPE, tempssl.RECIPES
    ),
    "coattention": MethodEntry(
        coattention.CoattentionConfig, coattention.Coattention, coattention.PRESETS, 30,
        coattention_config.RECIPE, coattention_config.RECIPES,
    ),
    "moco": MethodEntry(moco.MocoConfig, moco.Moco, moco.PRESETS, table5.FPS, table5.VIEWS_RECIPE),
    "cpc": MethodEntry(cpc.CpcConfig, cpc.Cpc, cpc.PRESETS, table5.FPS, table5.RECIPE),
    "dpc": MethodEntry(dpc.DpcConfig, dpc.Dpc, dpc.PRESETS, table5.FPS, dpc.RECIPE),
    "vdim": MethodEntry(vdim.VdimConfig, vdim.Vdim, vdim.PRESETS, table5.FPS, table5.VIEWS_RECIPE),
    "avts": MethodEntry(avts.AvtsConfig, avts.Avts, avts.PRESETS, table5.FPS, table5.RECIPE),
    "avslowfast": MethodEntry(
        avslowfast.AvSlowFastConfig, avslowfast.AvSlowFastMethod, avslowfast.PRESETS, table5.FPS,
        table5.RECIPE,
    ),
}  # fmt: skip
"""Adding a method is one line here."""


def method_named(name: str) -> MethodEntry:
    """The entry of a method.

    Raises:
        UsageError: there is none of this name; says which there are.
    """
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}; known: {', '.join(sorted(METHODS))}")
    return METHODS[name]


def preset_named(method: str, preset: str | None = None) -> Any:
    """A method's config by preset name; its default preset if none is named.

    Raises:
        UsageError: unknown method or preset; says which there are.
    """
    presets = method_named(method).presets
    name = preset or method_named(method).default_preset
    if name not in presets:
        raise UsageError(f"unknown preset {name!r} of {method}; known: {', '.join(presets)}")
    return presets[name]
