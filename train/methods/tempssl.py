"""Audio-visual contrast with temporal self-supervision (Jenni et al., AAAI 2023; methods §4).

The way of a clip: two views of it, of different time, speed and direction (`objectives.temporal`)
-> 3D ResNet of the pictures, 2D ResNet of the spectrograms, both averaged -> projections psi, whose
neighbours in a queue are positives and negatives (`objectives.contrast`), and predictors phi;
beside them, heads that tell speed, direction and order of the views. BatchNorm in psi and phi
counts the clips of all ranks, as the paper says; elsewhere those of its own rank (--sync-bn: all).

    L = mean over views (l_vv + l_va + l_av) + w_temp x (sum of the heads' cross-entropies)
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.cuts import PartialWaveClips
from train.dist import gathered
from train.methods.tempssl_config import PRESETS, RECIPE, RECIPES, TempSslConfig
from train.models.attention import full_precision
from train.models.resnet2d import ResNet2d
from train.models.resnet3d import ResNet3d
from train.models.spectrogram import LogSpectrogram
from train.models.syncnorm import SyncedBatchNorm
from train.objectives.contrast import NeighbourContrast
from train.objectives.global_local import Gather, keep_local, own_first
from train.objectives.queues import Queue
from train.objectives.temporal import ORDER_CLASSES

__all__ = ["PRESETS", "RECIPE", "RECIPES", "TempSsl", "TempSslConfig"]

VIEWS = 2
SILENCE_DB, LOUD_DB = -100.0, 40.0
"""Decibels of a spectrogram that become -1 and 1: its floor, and about a full-scale tone."""


class Clips(Protocol):
    """What of a `train.batch.Batch` the method looks at, after augmentation."""

    @property
    def video(self) -> Tensor:
        """Float (B, 2, 3, T, H, W), normalised."""

    @property
    def wave(self) -> Tensor | None:
        """Float (B, 2, channels, samples), in -1 .. 1."""

    @property
    def numbers(self) -> dict[str, Tensor]:
        """int64 (B, N) each: those of `train.objectives.temporal.TwoTransforms`."""

    @property
    def instance(self) -> Tensor:
        """int64 (B,): which clip it is."""


class TempSsl(nn.Module):
    """Encoders, heads and losses.

    Attributes:
        video, audio: F_v and F_a; absent with the other modality alone.
        project: psi of each modality that a term names; predict: phi.
        heads: of the temporal tasks, by name: speed_v, direction_a, order_va, ...
        memory: queues `v` and `a`, or `shared`: earlier batches' embeddings.
    """

    def __init__(self, config: TempSslConfig, gather: Gather = keep_local) -> None:
        """Build the networks.

        Args:
            config: what to build.
            gather: differentiable gathering over ranks.
        """
        super().__init__()
        self.config = config
        self.gather = gather
        self.video = self.audio = None
        if "v" in config.letters:
            self.video = ResNet3d(config.encoder, depth=config.depth, width=config.width)
        if "a" in config.letters:
            self.audio = ResNet2d(depth=config.audio_depth, width=config.audio_width)
            self.spectrograms = nn.ModuleList(
                LogSpectrogram(config.wave_rate_hz, config.n_fft, step, config.n_fft // 2 + 1)
                for step in config.stft_steps
            )
        self.project, self.predict = self._contrast_heads()
        self.heads = self._temporal_heads()
        self.contrast = NeighbourContrast(
            tau=config.tau,
            positives=config.positives,
            negatives=config.queue_negatives,
            negatives_from=config.negatives_from,
            uniform=config.weights == "uniform",
        )
        self.register_buffer("speeds", torch.tensor(config.speeds), persistent=False)
        self.memory = nn.ModuleDict()
        if config.uses_queue:
            names = ["shared"] if config.shared_queue else sorted(self.project)
            self.memory.update({name: Queue(config.queue, config.D) for name in names})

    speeds: Tensor

    def _contrast_heads(self) -> tuple[nn.ModuleDict, nn.ModuleDict]:
        """Psi, and phi but for SimCLR, of the modalities in terms."""
        config, width = self.config, self.feature_widths
        used = [letter for letter in config.letters if letter in "".join(config.terms)]
        norm = partial(SyncedBatchNorm, gather=self.gather)
        project = {
            m: mlp(width[m], [config.hidden] * 2, config.D, norm, norm_out=True) for m in used
        }
        predicting = used if config.contrast != "simclr" else []
        predict = {m: mlp(config.D, [config.hidden], config.D, norm) for m in predicting}
        return nn.ModuleDict(project), nn.ModuleDict(predict)

    def _temporal_heads(self) -> nn.ModuleDict:
        """A classifier a task and modality; of order, a pair of modalities."""
        config, width = self.config, self.feature_widths
        heads = nn.ModuleDict()
        for task, classes in (("speed", len(config.speeds)), ("direction", 2)):
            if task in config.tasks:
                for m in config.letters:
                    heads[f"{task}_{m}"] = mlp(width[m], [config.hidden] * 2, classes)
        if "order" in config.tasks:
            for m in config.letters:
                for n in config.letters:
                    hidden = [config.hidden] * 2
                    heads[f"order_{m}{n}"] = mlp(width[m] + width[n], hidden, ORDER_CLASSES)
        return heads

    @property
    def feature_widths(self) -> dict[str, int]:
        """Channels of the encoders, by modality's letter."""
        encoders = {"v": self.video, "a": self.audio}
        return {name: net.out_channels for name, net in encoders.items() if net is not None}

    @property
    def feature_channels(self) -> dict[str, int]:
        """C of each entry of `features`."""
        return {f"f{letter}": channels for letter, channels in self.feature_widths.items()}

    def forward(self, batch: Clips) -> dict[str, Tensor]:
        """The loss of a batch; in training its embeddings join the queues afterwards.

        Returns:
            loss: what to minimise; the only entry with a gradient.
            loss_crl, loss_temp: its two parts, and loss_vv, loss_speed_v, ... theirs.
            speed_v_accuracy, ..., order_aa_accuracy: of each head.
            v2v_r1, v2a_r1, a2v_r1, a2a_r1: share of clips whose prediction is nearer to the view
                it predicts than to that view of any other clip of all ranks; of the terms there
                are.
        """
        encoded = self._encode(batch)
        temporal, accuracies = self._temporal(encoded, batch.numbers)
        terms, retrieval = self._contrastive(encoded, batch.instance)
        facts = {**terms, **temporal}
        loss = torch.zeros((), device=batch.instance.device)
        if terms:
            facts["loss_crl"] = torch.stack(list(terms.values())).sum()
            loss = loss + facts["loss_crl"]
        if temporal:
            facts["loss_temp"] = torch.stack(list(temporal.values())).sum()
            loss = loss + self.config.w_temp * facts["loss_temp"]
        detached = {name: value.detach() for name, value in facts.items()}
        return {"loss": loss, **detached, **accuracies, **retrieval}

    @torch.no_grad()
    def with_controls(self, batch: Clips) -> dict[str, Tensor]:
        """What held-out evaluation measures: `forward`, and what no knowledge gives.

        Returns:
            what `forward` returns, and NAME_chance of each accuracy and retrieval. Of speeds it is
            what "as recorded" always would get, which every clip is long enough for.
        """
        facts: dict[str, Tensor] = self(batch)
        clips = len(gathered(batch.instance))
        chances = {
            "speed": (1 / batch.numbers["open_speeds"].float()).mean(),
            "direction": torch.tensor(1 / 2),
            "order": torch.tensor(1 / ORDER_CLASSES),
        }
        for name in list(facts):
            if name.endswith("_accuracy"):
                facts[f"{name}_chance"] = chances[name.split("_")[0]]
            elif name.endswith("_r1"):
                facts[f"{name}_chance"] = torch.tensor(1 / clips)
        return facts

    # --- encoders

    def _encode(self, batch: Clips) -> dict[str, Tensor]:
        """F of each modality, (B, 2, C), averaged over the clip."""
        encoded = {}
        if self.video is not None:
            encoded["v"] = self.video(batch.video.flatten(0, 1)).mean(dim=(2, 3, 4))
        if self.audio is not None:
            if batch.wave is None:
                raise ValueError("the batch has no waveform; the method reads one")
            images = self._images(batch.wave.flatten(0, 1), batch.numbers)
            encoded["a"] = self.audio(images).mean(dim=(2, 3))
        return {name: x.unflatten(0, (-1, VIEWS)) for name, x in encoded.items()}

    def _images(self, wave: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        """Spectrograms of views (2B, channels, samples): (2B, 1, side, side), frequency x time."""
        config, wave = self.config, wave.mean(dim=1)
        if config.sound_speed == "waveform":
            steps = wave.new_full((len(wave),), wave.shape[1] // config.stft_step)
            return self._image(self.spectrograms[0], wave, steps, config.spectrogram_side)
        samples = self.speeds[numbers["speed"].flatten()] * config.transforms.samples
        # Behind the interval there is silence, as behind one that was cut out.
        places = torch.arange(wave.shape[1], device=wave.device)
        wave = wave.masked_fill(places >= samples[:, None], 0.0)
        chosen = numbers["stft_step"].flatten()
        images = torch.zeros((), device=wave.device)
        for number, (net, step) in enumerate(
            zip(self.spectrograms, config.stft_steps, strict=True)
        ):
            image = self._image(net, wave, samples // step, config.spectrogram_side)
            images = torch.where((chosen == number).view(-1, 1, 1, 1), image, images)
        backward = numbers["backward"].flatten().bool().view(-1, 1, 1, 1)
        return torch.where(backward, images.flip(3), images)

    def _image(self, net: nn.Module, wave: Tensor, steps: Tensor, columns: int) -> Tensor:
        """The first `steps` (N,) spectra of waveforms (N, samples), as (N, 1, side, columns)."""
        decibel = net(wave).transpose(2, 3)  # (N, 1, bins, steps)
        scaled = (decibel - SILENCE_DB) * (2 / (LOUD_DB - SILENCE_DB)) - 1
        return resize(scaled, steps, (self.config.spectrogram_side, columns))

    def features(
        self, clips: PartialWaveClips, wanted: Collection[str] = ("fv", "fa")
    ) -> dict[str, Tensor]:
        """What downstream tasks use: features before the heads, of clips as recorded.

        Any length and size is taken. A longer sound gives a wider spectrogram, so that a second has
        as many columns as in training.

        Returns:
            fv: (B, C, T', H', W').
            fa: (B, C, K), averaged over frequency.
        """
        features = {}
        if self.video is not None and clips.video is not None and "fv" in wanted:
            features["fv"] = self.video(clips.video)
        if self.audio is not None and clips.wave is not None and "fa" in wanted:
            wave = clips.wave[:, 0].mean(dim=1)
            config = self.config
            side, view = config.spectrogram_side, config.transforms.samples
            columns = max(1, round(side * wave.shape[1] / view))
            net = self.spectrograms[config.stft_steps.index(config.stft_step)]
            steps = wave.new_full((len(wave),), wave.shape[1] // config.stft_step)
            features["fa"] = self.audio(self._image(net, wave, steps, columns)).mean(dim=2)
        return features

    # --- losses

    def _temporal(
        self, encoded: dict[str, Tensor], numbers: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Cross-entropies and accuracies of the heads; order is that of view 0 and view 1."""
        labels = {"speed": numbers["speed"], "direction": numbers["backward"],
                  "order": numbers["order"]}  # fmt: skip
        losses, accuracies = {}, {}
        for name, head in self.heads.items():
            task, modality = name.split("_")
            if task == "order":
                seen = torch.cat([encoded[m][:, view] for view, m in enumerate(modality)], dim=1)
            else:
                seen = encoded[modality].flatten(0, 1)
            logits, label = head(seen).float(), labels[task].flatten()
            losses[f"loss_{name}"] = F.cross_entropy(logits, label)
            hits = logits.detach().argmax(dim=1) == label
            accuracies[f"{name}_accuracy"] = hits.float().mean()
        return losses, accuracies

    def _contrastive(
        self, encoded: dict[str, Tensor], instance: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The terms, each the mean over clips and views, and retrieval; then the queues move on."""
        raw = {m: net(encoded[m].flatten(0, 1)).float() for m, net in self.project.items()}
        predicted = {m: F.normalize(net(raw[m]).float(), dim=1) for m, net in self.predict.items()}
        with full_precision(instance):
            own = {m: F.normalize(x, dim=1) for m, x in raw.items()}
            if self.config.contrast != "simclr":
                own = {m: x.detach() for m, x in own.items()}
            terms, retrieval = {}, {}
            for m, n in self.config.terms:
                anchors, views = predicted.get(m, own[m]), self._paired(own[n], m == n)
                losses = self._term(anchors, views, [own[x] for x in sorted({m, n})], instance, n)
                terms[f"loss_{m}{n}"] = losses.mean()
                retrieval[f"{m}2{n}_r1"] = _retrieval(anchors, views)
            if self.training and self.memory:
                self._remember(raw)
        return terms, retrieval

    def _paired(self, views: Tensor, same_modality: bool) -> Tensor:
        """What each anchor predicts: the clip's other view, across modalities the same one."""
        if self.config.aligned and not same_modality:
            return views
        return views.view(-1, VIEWS, views.shape[1]).flip(1).flatten(0, 1)

    def _term(
        self, anchors: Tensor, views: Tensor, batch: list[Tensor], instance: Tensor, modality: str
    ) -> Tensor:
        """A contrastive term.

        Args:
            anchors: (2B, D) unit vectors that predict.
            views: (2B, D) those they predict.
            batch: (2B, D) vectors of each modality that gives negatives.
            instance: (B,) which clip it is.
            modality: of the views.

        Returns:
            (2B,) losses.
        """
        contrast = self.config.contrast
        if contrast == "simsiam":  # Eq. 1 without its denominator, which is all that repels
            return -(anchors * views).sum(dim=1) / self.config.tau
        queue = self._queue(modality)
        clips, everyone = _clip_of(instance), _clip_of(gathered(instance))
        if contrast == "nnclr":
            assert queue is not None
            near = _nearest_vectors(queue, views)
            return self.contrast(  # type: ignore[no-any-return]
                near, anchors, self.gather(anchors), clips[:, None] != everyone, None
            )
        gather = self.gather if contrast == "simclr" else gathered
        others = torch.cat([gather(x) for x in batch])
        foreign = clips[:, None] != everyone.repeat(len(batch))
        return self.contrast(  # type: ignore[no-any-return]
            anchors, views, others, foreign, queue if contrast == "neighbours" else None
        )

    def _queue(self, modality: str) -> Queue | None:
        if not self.config.uses_queue:
            return None
        queue = self.memory["shared" if self.config.shared_queue else modality]
        assert isinstance(queue, Queue)
        return queue

    def _remember(self, raw: dict[str, Tensor]) -> None:
        """Append the mean of each clip's views, of all ranks; of both modalities if shared."""
        width = self.config.D
        means = {m: gathered(x).view(-1, VIEWS, width).mean(dim=1) for m, x in raw.items()}
        if self.config.shared_queue:
            means = {"shared": torch.stack(list(means.values())).mean(dim=0)}
        for m, vectors in means.items():
            queue = self.memory[m]
            assert isinstance(queue, Queue)
            queue.append(vectors)


def mlp(
    c_in: int,
    hidden: list[int],
    c_out: int,
    norm: Callable[[int], nn.Module] = nn.BatchNorm1d,
    *,
    norm_out: bool = False,
) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them, and BatchNorm at the end if wished."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(c_in, width, bias=False), norm(width), nn.ReLU(inplace=True)]
        c_in = width
    layers += [nn.Linear(c_in, c_out, bias=not norm_out)]
    return nn.Sequential(*layers, *([norm(c_out)] if norm_out else []))


def resize(spectrograms: Tensor, steps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing of the first `steps` columns of each, every one with its own number.

    Args:
        spectrograms: (N, 1, F, S).
        steps: int (N,), 1 .. S.
        size: rows and columns of the result.

    Returns:
        (N, 1, *size): what `interpolate(x[i, :, :, :steps[i]], size)` gives, one by one.
    """
    rows, columns = size
    rowed = F.interpolate(
        spectrograms, (rows, spectrograms.shape[3]), mode="bilinear", align_corners=False
    )
    middle = torch.arange(columns, device=steps.device) + 0.5
    places = (middle * (steps[:, None] / columns) - 0.5).clamp(min=0)
    left = places.long()
    right = torch.minimum(left + 1, steps[:, None].long() - 1)
    index = torch.stack([torch.minimum(left, right), right], dim=1)  # (N, 2, columns)
    picked = rowed.gather(3, index.flatten(1)[:, None, None].expand(-1, 1, rows, -1))
    one, other = picked[..., :columns], picked[..., columns:]
    return torch.lerp(one, other, (places - left)[:, None, None])


def _clip_of(instance: Tensor) -> Tensor:
    """(B,) -> (2B,): the clip of each view."""
    return instance.repeat_interleave(VIEWS)


def _nearest_vectors(queue: Queue, views: Tensor) -> Tensor:
    """(N, D) nearest neighbours in the queue; while that is empty, the views themselves."""
    _, rows = queue.nearest(views, 1)
    return torch.where(queue.filled > 0, queue.entries[rows[:, 0]], views)


@torch.no_grad()
def _retrieval(anchors: Tensor, views: Tensor) -> Tensor:
    """Recall at 1 of the first view's predictions among the same view of the clips of all ranks."""
    predicted, keys = gathered(anchors)[::VIEWS], gathered(views)[::VIEWS]
    return own_first(predicted @ keys.T)
