"""GLCM: global-local cross-modal contrast (NeurIPS 2021 paper §3, methods §1).

The way of a clip: slow pictures, fast pictures and mel -> three encoders -> projections. The mean
of the slow grid over time meets the mean of the audio over time in L_g; their attention map pools
the fast features to one vector a frame, which meets the audio slices of that frame in L_l.

Projections are linear and the weights of a mean sum to 1, so features are pooled first and
projected after: the same numbers for fewer operations than the released code spends (methods §1.2).
"""

from collections.abc import Collection
from typing import Protocol

import torch
from torch import Tensor, nn

from train.cuts import PartialMelClips
from train.methods.glcm_config import PRESETS, GlcmConfig
from train.models.attention import (
    AttentionMap,
    attention_facts,
    full_precision,
    pool_cells,
    resize_grid,
    uniform_attention,
)
from train.models.audio import AudioResNet
from train.models.video import PathName, VideoResNet
from train.objectives.global_local import (
    SLICES_PER_FRAME,
    Gather,
    GlobalLoss,
    LocalLoss,
    keep_local,
    own_first,
)

__all__ = ["PRESETS", "Glcm", "GlcmConfig"]

COMPARED_CLIPS = 32
"""Whose sounds and pictures are paired for a2v_r1_sync: its memory grows with their square."""

SHIFT_PARTS = 4
"""Sound that is out of time is so by this part of the window."""


class Clips(Protocol):
    """What of a `train.batch.Batch` the method looks at, after augmentation."""

    @property
    def video(self) -> Tensor:
        """Float (B, 3, T, H, W), normalised."""

    @property
    def mel(self) -> Tensor:
        """Float (B, 80, 3T)."""


class Glcm(nn.Module):
    """Encoders, projections and both objectives.

    Attributes:
        slow: E_v^g, absent with `encoders="l_only"`.
        fast: E_v^l.
        audio: E_a, shared by both objectives.
        project_vg, project_ag: to D_g, the space of the global objective.
        project_vl, project_al: to D_l, the space of the local one.
    """

    def __init__(self, config: GlcmConfig, gather: Gather = keep_local) -> None:
        """Build the networks.

        Args:
            config: what to build.
            gather: differentiable gathering over ranks, see `GlobalLoss`; used if the config says
                so.
        """
        super().__init__()
        self.config = config
        self.fast = _encoder("fast", config, config.width // config.beta)
        both = config.encoders == "both"
        self.slow = _encoder("slow", config, config.width) if both else None
        self.audio = AudioResNet(
            width=config.width,
            audio_stride=config.audio_stride,
            temporal_padding=config.temporal_padding,
        )
        grid_channels = (self.slow or self.fast).out_channels
        self.project_vg = nn.Linear(grid_channels, config.D_g)
        self.project_ag = nn.Linear(self.audio.out_channels, config.D_g)
        self.project_vl = nn.Linear(self.fast.out_channels, config.D_l)
        self.project_al = nn.Linear(self.audio.out_channels, config.D_l)
        self._build_objectives(config, gather)
        self._freeze_unused()

    def _build_objectives(self, config: GlcmConfig, gather: Gather) -> None:
        self.attention = AttentionMap(
            sim=config.sim,
            tau=config.temperature,
            att_tau=config.att_tau,
            detach=config.detach_att,
        )
        self.loss_g = GlobalLoss(
            directions=config.directions,
            pos_twice=config.pos_twice,
            sim=config.sim,
            tau=config.temperature,
            gather=gather if config.gather else keep_local,
        )
        self.loss_l = LocalLoss(
            window_M=config.window_M,
            multi_pair=config.multi_pair,
            mask_shared=config.mask_shared,
            pos_twice=config.pos_twice,
            cross_video=config.cross_video,
            sim=config.sim,
            tau=config.temperature,
        )

    def _freeze_unused(self) -> None:
        """Freeze what no term of the loss reaches: DDP waits for every gradient it was promised."""
        config = self.config
        unused: list[nn.Module | None] = []
        if config.weight_l == 0:
            unused += [self.project_vl, self.project_al, self.fast if self.slow else None]
        elif config.weight_g == 0 and (config.att_pool == "avg" or config.detach_att):
            unused += [self.project_vg, self.project_ag, self.slow]
        for module in unused:
            if module is not None:
                module.requires_grad_(False)

    @property
    def feature_channels(self) -> dict[str, int]:
        """C of each entry of `features` that has channels."""
        encoders = {"fg": self.slow, "fl": self.fast, "fa": self.audio}
        return {name: net.out_channels for name, net in encoders.items() if net is not None}

    @property
    def further_channels(self) -> dict[str, int]:
        """C of the maps that `features` gives only by name: the stages of E_v^l."""
        return self.fast.stage_channels

    def forward(self, batch: Clips) -> dict[str, Tensor]:
        """The loss of a batch.

        Returns:
            loss: what to minimise; the only entry with a gradient.
            loss_g, loss_l: its terms (L_l is left out where it has no weight).
            facts of `objectives.global_local`, `att_entropy` (nats) and `att_entropy_share` (of a
                uniform map's).

        Raises:
            ValueError: pictures and mel do not belong together.
        """
        self._check(batch.video, batch.mel)
        return self._objectives(*self._look(batch.video), self.audio(batch.mel))

    def with_controls(self, batch: Clips) -> dict[str, Tensor]:
        """What held-out evaluation measures: also the local objective with a wrong sound.

        Swapped, by one place, each clip has another clip's sound. A network that tells frames apart
        by their place in the window finds "its" slice in any sound; one that has learnt synchrony
        cannot do better with a foreign sound than equal logits do. Retrieval among the clips and
        L_g have no such control: swapping the sounds only puts the rows of the very scores that
        they compare into another order.

        Shifted by a quarter of the window, each clip has its own sound at the wrong time. A model
        that knows the time falls to chance, one that knows which clip it is, by voice or noise,
        does not. The audio features are rolled, not the mel: a rolled mel has a seam in its middle
        that no recording has, and every layer would carry it further. The features' mean over time
        stays what it is, and with it the global embedding and the attention map, so that timing is
        all that changes.

        Returns:
            what `forward` returns, and
            loss_l_swapped, v2a_r1_l_swapped: with foreign sound; left out for a batch of one clip,
                which has no other.
            loss_l_gap: swapped less right, > 0 where sound and picture of a clip agree.
            loss_l_shifted, a2v_r1_sync_shifted: with each clip's own sound out of time.
            loss_g_chance, loss_l_chance, a2v_r1_chance, v2a_r1_l_chance, a2v_r1_sync_chance: with
                equal logits, and drawn at random.
        """
        self._check(batch.video, batch.mel)
        (fg, fl), fa = self._look(batch.video), self.audio(batch.mel)
        facts = self._objectives(fg, fl, fa)
        facts |= self._chances(fg, fl, fa)
        if fl is None:
            return facts
        if len(fa) > 1:
            swapped = self._objectives(fg, fl, fa.roll(1, dims=0))
            facts |= {f"{name}_swapped": swapped[name] for name in ("loss_l", "v2a_r1_l")}
            facts["loss_l_gap"] = swapped["loss_l"] - facts["loss_l"]
        shift = SLICES_PER_FRAME * max(fl.shape[2] // SHIFT_PARTS, 1)
        shifted = self._objectives(fg, fl, fa.roll(shift, dims=2))
        return facts | {f"{name}_shifted": shifted[name] for name in ("loss_l", "a2v_r1_sync")}

    def _chances(self, fg: Tensor, fl: Tensor | None, fa: Tensor) -> dict[str, Tensor]:
        """Losses with all logits equal, and the share of hits when drawing at random."""
        audio, grid = self.embed_global(fg, fa)
        clips = len(self.loss_g.gather(audio))
        chances = {
            "loss_g": self.loss_g(torch.zeros_like(audio), torch.zeros_like(grid))[0],
            "a2v_r1": torch.tensor(1 / clips),
        }
        if fl is not None:
            frames = fl.new_zeros(len(fa), fl.shape[2], self.config.D_l)
            slices = fa.new_zeros(len(fa), fa.shape[2], self.config.D_l)
            candidates = fl.shape[2] * (len(fa) if self.config.cross_video else 1)
            chances["loss_l"] = self.loss_l(frames, slices)[0]
            chances["v2a_r1_l"] = torch.tensor(1 / candidates)
            chances["a2v_r1_sync"] = torch.tensor(1 / min(len(fa), COMPARED_CLIPS))
        return {f"{name}_chance": value.detach() for name, value in chances.items()}

    def _objectives(self, fg: Tensor, fl: Tensor | None, fa: Tensor) -> dict[str, Tensor]:
        """Loss, terms and facts from the features of pictures and sound."""
        audio, grid = self.embed_global(fg, fa)
        att = self.attention(audio, grid)
        if self.config.weight_g == 0:
            audio, grid = audio.detach(), grid.detach()
        loss_g, facts = self.loss_g(audio, grid)
        terms = {"loss_g": loss_g}
        if fl is not None:
            terms["loss_l"], local_facts = self.loss_l(*self.embed_local(fl, fa, att))
            facts |= {**local_facts, "a2v_r1_sync": own_first(self.in_time(fl, fa, audio, grid))}
        weights = {"loss_g": self.config.weight_g, "loss_l": self.config.weight_l}
        # A term without weight stays out: 0 x inf would be NaN.
        used = [weights[name] * value for name, value in terms.items() if weights[name]]
        loss = torch.stack(used).sum()
        detached = {name: value.detach() for name, value in terms.items()}
        return {"loss": loss, **detached, **facts, **attention_facts(att)}

    def embed_global(self, fg: Tensor, fa: Tensor) -> tuple[Tensor, Tensor]:
        """S-local/T-global embeddings.

        Args:
            fg: (B, C_g, T', H, W) features of the slow path (of the fast one with `l_only`).
            fa: (B, C_a, K) features of the audio.

        Returns:
            z_a (B, D_g) and z_v (B, P, D_g), P = H x W after `grid_out`.
        """
        mean = self._resized(fg.mean(dim=2, keepdim=True))
        cells = mean.flatten(2).transpose(1, 2)
        return self.project_ag(fa.mean(dim=2)), self.project_vg(cells)

    def embed_local(self, fl: Tensor, fa: Tensor, att: Tensor) -> tuple[Tensor, Tensor]:
        """S-global/T-local embeddings.

        Args:
            fl: (B, C_l, T, H, W) features of the fast path.
            fa: (B, C_a, 3T) features of the audio.
            att: (B, P) attention map, not looked at with `att_pool="avg"`.

        Returns:
            z_v (B, T, D_l) and z_a (B, 3T, D_l).
        """
        fl = self._resized(fl)
        weights = att if self.config.att_pool == "attention" else uniform_attention(fl)
        return self.project_vl(pool_cells(fl, weights)), self.project_al(fa.transpose(1, 2))

    @torch.no_grad()
    def in_time(self, fl: Tensor, fa: Tensor, audio: Tensor, grid: Tensor) -> Tensor:
        """How well each sound of a batch is in time with each clip's pictures.

        What the local objective knows, as a score of two clips: each sound looks at all pictures
        with its own attention, then frames are compared with the slices of their time. Where every
        clip shows the same speaker, this can tell clips apart and the global objective hardly can.

        Args:
            fl: (B, C_l, T, H, W) features of the fast path.
            fa: (B, C_a, 3T) features of the audio.
            audio: (B, D_g) and
            grid: (B, P, D_g), as `embed_global` gives them.

        Returns:
            (B', B') float32: sound by pictures, of the first B' <= COMPARED_CLIPS of this rank.
        """
        fl, fa, audio, grid = (x[:COMPARED_CLIPS].detach() for x in (fl, fa, audio, grid))
        fl = self._resized(fl).float().flatten(3)  # (B', C, T, P)
        with full_precision(fl):
            if self.config.att_pool == "attention":
                pooled = torch.einsum("abp,bctp->abtc", self.attention.across(audio, grid), fl)
            else:
                pooled = fl.mean(dim=3).transpose(1, 2).expand(len(fa), -1, -1, -1)
        # Weights, not modules: hooks, as those of `train describe`, are for what is learned with.
        vl, al = self.project_vl, self.project_al
        frames = nn.functional.linear(pooled, vl.weight, vl.bias)
        slices = nn.functional.linear(fa.transpose(1, 2), al.weight, al.bias)
        return self.loss_l.clip_scores(frames, slices)

    def segment_attention(self, fl: Tensor, fa: Tensor, segments: int) -> Tensor:
        """Where the sound of each part of a clip is in that part's frames (methods §7, AVE).

        Unlike the map of the losses, which is one a clip, by the local projections: for each frame
        t of segment s softmax over cells p of <mean over slices k of s of p_al(fa)[k],
        p_vl(fl)[t, p]>, with similarity and temperature as in training.

        Args:
            fl: (B, C_l, T, H, W) features of the fast path.
            fa: (B, C_a, 3T) features of the audio.
            segments: parts of equal length; T is a multiple of it.

        Returns:
            (B, T, H * W) float32, rows sum to 1.
        """
        clips, frames = fl.shape[0], fl.shape[2]
        slices = self.project_al(fa.transpose(1, 2))
        sound = slices.reshape(clips, segments, -1, slices.shape[2]).mean(dim=2)
        query = sound.repeat_interleave(frames // segments, dim=1)
        cells = self.project_vl(fl.permute(0, 2, 3, 4, 1).flatten(2, 3))
        att: Tensor = self.attention(query.flatten(0, 1), cells.flatten(0, 1))
        return att.view(clips, frames, -1)

    def features(
        self, batch: PartialMelClips, wanted: Collection[str] = ("fg", "fl", "fa", "att")
    ) -> dict[str, Tensor]:
        """What downstream tasks use: features before the projections (methods §1.9), unpooled.

        Any clip length is taken; pictures or mel may be None, and what needs them is left out, as
        is what is not wanted.

        Returns:
            fg: (B, C_g, ceil(T / slow_step), H, W); absent with `encoders="l_only"`.
            fl: (B, C_l, T, H, W).
            fa: (B, C_a, 3T).
            att: (B, H, W) attention map, on the grid of the losses.
            res2 ... res5: stages of E_v^l, see `VideoResNet.stages`.
        """
        features = {}
        if batch.video is not None:
            stages = self.fast.stages(batch.video)
            features = {name: x for name, x in stages.items() if name in wanted}
            features["fl"] = stages["res5"]
            if self.slow is not None and {"fg", "att"} & set(wanted):
                features["fg"] = self.slow(self._slow_frames(batch.video))
        if batch.mel is not None:
            features["fa"] = self.audio(batch.mel)
        if batch.video is not None and batch.mel is not None and "att" in wanted:
            grid = features.get("fg", features["fl"])
            att = self.attention(*self.embed_global(grid, features["fa"]))
            size = (self.config.grid_out,) * 2 if self.config.grid_out else grid.shape[-2:]
            features["att"] = att.unflatten(1, size)
        return features

    def _look(self, video: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features for the global objective, and for the local one if it has a weight."""
        if self.slow is None:
            fl = self.fast(video)
            return fl, fl if self.config.weight_l else None
        fl = self.fast(video) if self.config.weight_l else None
        return self.slow(self._slow_frames(video)), fl

    def _slow_frames(self, video: Tensor) -> Tensor:
        return video[:, :, :: self.config.slow_step]

    def _resized(self, features: Tensor) -> Tensor:
        side = self.config.grid_out
        return features if side is None else resize_grid(features, side)

    def _check(self, video: Tensor, mel: Tensor) -> None:
        expected = self.config.slices_per_frame * video.shape[2]
        if video.shape[1] != 3 or mel.shape[-1] != expected:
            raise ValueError(
                f"pictures {tuple(video.shape)} and mel {tuple(mel.shape)}; expected (B, 3, T, H, "
                f"W) and {self.config.slices_per_frame} mel slices a frame, {expected} in all"
            )


def _encoder(path: PathName, config: GlcmConfig, width: int) -> VideoResNet:
    return VideoResNet(
        path,
        depth=config.depth,
        width=width,
        block=config.block,
        strides=config.strides,
        # Time is averaged over the slow path's frames, so what they know of it tells L_l nothing.
        temporal_padding=config.temporal_padding if path == "fast" else "zeros",
    )
