"""AVID: audio-visual instance discrimination (AVID paper §3, methods §3).

Pictures and sound of a clip become one vector each, of length 1. Each is told apart, by NCE, from
K other clips by what is remembered of them all: memory banks hold a slowly moving vector for every
clip and modality (`objectives.memory_bank`). `cross` compares a clip's picture with remembered
sounds and its sound with remembered pictures, `self` stays within a modality, `joint` does both.

Clips that are held out are in no bank. There each clip of the batch is told apart from the others
of the batch, of all ranks, by their vectors of the moment, which stand for the K draws: the loss is
on the scale of training, and retrieval has a chance of 1 in the number of clips. A within-modal
term then has the very same vector as its positive, and only its negatives say anything.
"""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.cuts import PartialWaveClips, RunFacts
from train.methods.avid_config import PRESETS, AvidConfig
from train.models.attention import full_precision
from train.models.audio2d import AUDIO_STAGES, Conv2D10
from train.models.r2plus1d import STAGES, R2Plus1D
from train.models.spectrogram import LogSpectrogram
from train.models.standard import RunningStandard
from train.objectives.global_local import Gather, keep_local, own_first
from train.objectives.memory_bank import MemoryBanks, expected_normalisation, hashed, nce

__all__ = ["PRESETS", "Avid", "AvidConfig"]

CROSS = {"v2a": ("video", "audio"), "a2v": ("audio", "video")}
"""Terms: whose vector is compared with whose memories."""
SELF = {"v2v": ("video", "video"), "a2a": ("audio", "audio")}
TERMS = {"cross": CROSS, "self": SELF, "joint": CROSS | SELF}
AUDIO_STAGE_NAMES = {f"audio_{name}": name for name in AUDIO_STAGES}
"""The audio network's stages among the features, whose names the video network has taken."""


class Clips(Protocol):
    """What of a `train.batch.Batch` the method looks at, after augmentation."""

    @property
    def video(self) -> Tensor:
        """Float (B, 3, T, H, W), normalised."""

    @property
    def wave(self) -> Tensor:
        """Float (B, 1, channels, samples), -1 .. 1."""

    @property
    def instance(self) -> Tensor:
        """int64 (B,): the clip's place in the banks."""


class Term(NamedTuple):
    """Scores that one term of the loss contrasts."""

    positive: Tensor
    """(B, P)."""
    negative: Tensor
    """(B, K)."""
    chance: Tensor
    """Of the positive to have the highest score by guessing, ()."""
    weight: float = 1.0


class Avid(nn.Module):
    """Networks, heads, banks and the objective.

    Attributes:
        video, audio: R(2+1)D and Conv2D-10, whose last maps are max-pooled.
        project_video, project_audio: heads, to D.
        memory: the banks; None until `prepare` said how many clips there are.
    """

    terms: Mapping[str, tuple[str, str]]

    def __init__(self, config: AvidConfig, gather: Gather = keep_local) -> None:
        """Build the networks.

        Args:
            config: what to build.
            gather: (B, ...) of this rank -> (R * B, ...) of all, in their order.
        """
        super().__init__()
        self.config = config
        self.gather = gather
        self.terms = TERMS[config.objective]
        self.video = R2Plus1D(depth=config.depth, width=config.width)
        self.spectrogram = LogSpectrogram(
            config.wave_rate_hz, config.n_fft, config.hop, config.bins
        )
        self.standard = RunningStandard(config.bins, gather)
        self.audio = Conv2D10(width=config.width)
        self.project_video = _head(self.video.out_channels, config)
        self.project_audio = _head(self.audio.out_channels, config)
        self.memory: MemoryBanks | None = None

    def prepare(self, facts: RunFacts) -> None:
        """Build the banks of a run."""
        self.memory = self.new_banks(facts).to(next(self.parameters()).device)

    def new_banks(self, facts: RunFacts) -> MemoryBanks:
        """With random vectors for every clip."""
        return MemoryBanks(
            facts.instances, self.config.embedding, self.config.momentum, trained_ids(facts)
        )

    @property
    def feature_channels(self) -> dict[str, int]:
        """C of each entry of `features` that is there without being asked for."""
        return {"fv": self.video.out_channels, "fa": self.audio.out_channels}

    @property
    def further_channels(self) -> dict[str, int]:
        """C of the video network's stages, which `features` gives only by name."""
        return {name: self.video.out_channels >> (3 - i) for i, name in enumerate(STAGES)}

    # --- training ---------------------------------------------------------------------------------

    def forward(self, batch: Clips) -> dict[str, Tensor]:
        """The loss of a batch; in training the banks then take over what the networks said.

        Returns:
            loss: the weighted mean of the terms; the only entry with a gradient.
            loss_v2a, loss_a2v, loss_v2v, loss_a2a: the terms there are.
            v2a_r1_memory, ...: share of the clips whose own memory has a higher score than all
                negatives, and v2a_r1_memory_chance, when guessing.
            Held out: v2a_r1 and a2v_r1 instead, see the module's docstring.
        """
        vectors = self.embed(batch.video, batch.wave)
        if not self.training:
            return self._among_themselves(vectors)
        terms = self.scored(batch.instance, vectors)
        z = self._remembered(batch.instance, vectors, terms)
        losses = {name: nce(term.positive, term.negative, z).mean() for name, term in terms.items()}
        weights = {name: term.weight for name, term in terms.items()}
        hits = {f"{name}_r1_memory": _hits(terms[name]) for name in self.terms}
        chances = {f"{name}_r1_memory_chance": terms[name].chance for name in self.terms}
        return {**_weighted(losses, weights), **hits, **chances}

    def embed(self, video: Tensor, wave: Tensor) -> dict[str, Tensor]:
        """Vectors of length 1, float32 (B, D), of `video` and `audio`."""
        seen = self.project_video(self.video(video).amax(dim=(2, 3, 4)))
        heard = self.project_audio(self.audio(self.heard(wave)).amax(dim=(2, 3)))
        return {
            "video": functional.normalize(seen.float(), dim=1),
            "audio": functional.normalize(heard.float(), dim=1),
        }

    def heard(self, wave: Tensor) -> Tensor:
        """The first stretch of (B, A, channels, samples): standardised (B, 1, steps, bins)."""
        with full_precision(wave):
            spectrogram: Tensor = self.standard(self.spectrogram(wave[:, 0].float().mean(dim=1)))
        return spectrogram

    def scored(self, instance: Tensor, vectors: Mapping[str, Tensor]) -> dict[str, Term]:
        """Scores of each term with the clip's own memory and with those drawn."""
        others = self.drawn(instance, instance[:, None])
        return self.contrasted(instance, vectors, self.recalled(others), chance_of_hits(others))

    def contrasted(
        self,
        instance: Tensor,
        vectors: Mapping[str, Tensor],
        others: Mapping[str, Tensor],
        chance: Tensor,
    ) -> dict[str, Term]:
        """The same with memories of others (B, K, D) given, and the chance to beat them all."""
        own = self.recalled(instance[:, None])
        return {
            name: Term(self.scores(vectors[x], own[y]), self.scores(vectors[x], others[y]), chance)
            for name, (x, y) in self.terms.items()
        }

    def drawn(
        self, instance: Tensor, excluded: Tensor, draws: int | None = None, purpose: int = 0
    ) -> Tensor:
        """(B, K) instances, or `draws` of them, not excluded; see `MemoryBanks.draw`, `hashed`."""
        banks = self._banks
        bits = hashed(instance, banks.batches, draws or self.config.negatives, purpose)
        return banks.draw(excluded, bits)

    def recalled(self, instances: Tensor) -> dict[str, Tensor]:
        """Memories (B, n, D) of instances (B, n), by modality."""
        banks = self._banks
        return {"video": banks.video[instances], "audio": banks.audio[instances]}

    def scores(self, vectors: Tensor, memories: Tensor) -> Tensor:
        """(B, D) with (B, n, D): similarities over temperature, (B, n) float32."""
        with full_precision(vectors):
            return torch.einsum("bd,bnd->bn", vectors, memories) / self.config.tau

    @torch.no_grad()
    def _remembered(
        self, instance: Tensor, vectors: Mapping[str, Tensor], terms: Mapping[str, Term]
    ) -> Tensor:
        """Tell the banks of this batch, of all ranks, after its scores were taken; gives Z."""
        with full_precision(instance):
            levels = [term.negative.exp().mean(dim=1) for term in terms.values()]
            level = torch.stack(levels, dim=1).mean(dim=1, keepdim=True)
            whole = self.gather(torch.cat([vectors["video"], vectors["audio"], level], dim=1))
        width = self.config.embedding
        video, audio = whole[:, :width], whole[:, width : 2 * width]
        self._banks.update(self.gather(instance), video, audio)
        return self._banks.normalisation(whole[:, -1], keep=True)

    @property
    def _banks(self) -> MemoryBanks:
        if self.memory is None:
            raise ValueError("no memory banks: call prepare(RunFacts(...)) before training")
        return self.memory

    # --- held out ---------------------------------------------------------------------------------

    def with_controls(self, batch: Clips) -> dict[str, Tensor]:
        """What held-out evaluation measures: the clips among themselves, beside controls.

        Returns:
            loss, loss_v2a, ..., v2a_r1, a2v_r1: see the module's docstring.
            loss_v2a_swapped, loss_a2v_swapped: each clip with another one's sound; left out for one
                clip.
            loss_v2a_chance, loss_a2v_chance: the best of all losses with equal scores.
            v2a_r1_chance, a2v_r1_chance: drawn at random.
        """
        vectors = self.embed(batch.video, batch.wave)
        facts = self._among_themselves(vectors)
        scores = self._cross_scores(vectors)
        for name, matrix in scores.items():
            facts[f"{name}_r1_chance"] = torch.tensor(1 / len(matrix))
            facts[f"loss_{name}_chance"] = torch.tensor(loss_of_equal_scores(self.config.negatives))
            if len(matrix) > 1:
                facts[f"loss_{name}_swapped"] = self._loss_of(matrix.roll(1, dims=1))
        return facts

    @torch.no_grad()
    def _among_themselves(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        cross = self._cross_scores(vectors)
        everyone = {name: self.gather(x) for name, x in vectors.items()}
        scores = {
            name: cross[name] if name in cross else self._products(everyone[x], everyone[y])
            for name, (x, y) in self.terms.items()
        }
        losses = {name: self._loss_of(matrix) for name, matrix in scores.items()}
        hits = {f"{name}_r1": own_first(matrix) for name, matrix in cross.items()}
        return {**_weighted(losses, dict.fromkeys(losses, 1.0)), **hits}

    @torch.no_grad()
    def _cross_scores(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Both directions of (N, N) scores of all ranks' clips; retrieval for any objective."""
        v2a = self._products(self.gather(vectors["video"]), self.gather(vectors["audio"]))
        return {"v2a": v2a, "a2v": v2a.T}

    def _products(self, x: Tensor, y: Tensor) -> Tensor:
        with full_precision(x):
            return x @ y.T / self.config.tau

    @torch.no_grad()
    def _loss_of(self, scores: Tensor) -> Tensor:
        """NCE of (N, N) scores, whose diagonal is the positives."""
        other = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        negative = scores[other].view(len(scores), -1)
        draws = self.config.negatives
        return nce(scores.diagonal()[:, None], negative, self._z(scores), draws).mean()

    def _z(self, like: Tensor) -> Tensor:
        """Z of training; what it is for random vectors where there was none."""
        z = expected_normalisation(self.config.embedding, self.config.tau)
        random = torch.full((), z, device=like.device)
        if self.memory is None:
            return random
        return self.memory.normalisation(random, keep=False)

    # --- downstream -------------------------------------------------------------------------------

    def features(
        self, batch: PartialWaveClips, wanted: Collection[str] = ("fv", "fa")
    ) -> dict[str, Tensor]:
        """Features before the heads, unpooled; of clips of any length and size.

        Pictures or sound may be None, and what needs them is left out, as is what is not wanted.

        Returns:
            fv: (B, C, T', H', W').
            fa: (B, C, K), the largest over the frequencies, which the method's own pooling, the
                largest of all, goes on with.
            conv2x ... conv5x: the video network's stages, see `R2Plus1D.stages`; conv5x is fv.
            audio_conv2x ... audio_conv5x: (B, C, steps', bins') of the audio network.
        """
        features: dict[str, Tensor] = {}
        if batch.video is not None:
            names = {"fv": "conv5x"} | {name: name for name in STAGES}
            features |= _stages_named(self.video, batch.video, names, wanted)
        audio_names = {"fa": "conv5x"} | AUDIO_STAGE_NAMES
        if batch.wave is not None and set(audio_names) & set(wanted):
            features |= _stages_named(self.audio, self.heard(batch.wave), audio_names, wanted)
        if "fa" in features:
            features["fa"] = features["fa"].amax(dim=3)
        return features


def loss_of_equal_scores(draws: int) -> float:
    """The smallest NCE loss of a network that gives every memory the same score, which is log Z.

    log(1 + K) + K log(1 + 1/K): nearly log K + 1.
    """
    return math.log1p(draws) + draws * math.log1p(1 / draws)


def trained_ids(facts: RunFacts) -> Tensor | None:
    """Of the run, for memory banks."""
    if facts.trained is None:
        return None
    ids: Tensor = torch.from_numpy(facts.trained)
    return ids


def chance_of_hits(others: Tensor) -> Tensor:
    """Share of clips that would be found by guessing among themselves and others (B, K).

    An instance that was drawn twice is one candidate.
    """
    ordered = others.sort(dim=1).values
    different = 1 + (ordered.diff(dim=1) > 0).sum(dim=1)
    return (1 / (1 + different)).mean()


def _head(width: int, config: AvidConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, config.hidden),
        nn.ReLU(inplace=True),
        nn.Linear(config.hidden, config.hidden),
        nn.ReLU(inplace=True),
        nn.Linear(config.hidden, config.embedding),
    )


def _weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """`loss`, the weighted mean of the terms, and the terms.

    A mean as in the released code, where the paper adds: a constant factor, which Adam takes out.
    """
    weighted = torch.stack([weights[name] * loss for name, loss in losses.items()])
    loss = weighted.sum() / sum(weights[name] for name in losses)
    return {"loss": loss, **{f"loss_{name}": x.detach() for name, x in losses.items()}}


def _hits(term: Term) -> Tensor:
    """Share of clips whose positive has the highest score; a tie is a miss."""
    best = term.negative.detach().amax(dim=1)
    return (term.positive.detach()[:, 0] > best).float().mean()


def _stages_named(
    network: R2Plus1D | Conv2D10, x: Tensor, names: Mapping[str, str], wanted: Collection[str]
) -> dict[str, Tensor]:
    """Maps of the wanted stages; `names` is from the features' names to the network's."""
    asked = {name: stage for name, stage in names.items() if name in wanted}
    if not asked:
        return {}
    maps = network.stages(x, set(asked.values()))
    return {name: maps[stage] for name, stage in asked.items()}
