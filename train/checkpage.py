"""The page of `train check`: table, loss, and each clip of the batch as the model sees it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.format import MEL_SLICES_PER_FRAME
from train.augment import IMAGENET_MEAN, IMAGENET_STD
from train.batch import Batch
from train.page import HTML, STYLE, figure, png

if TYPE_CHECKING:
    from train.check import Trial, Verdict

STRIP_FRAMES = 12
MAX_CLIPS = 8

PAGE = HTML.from_string("""<!doctype html>
<meta charset="utf-8"><title>train check {{ trial.config.method }}</title>
<style>{{ style }} .FAILED { color: #b00; font-weight: bold }</style>
<h1>{{ trial.config.method }}, preset {{ trial.config.preset }}</h1>
<table>{% for v in verdicts %}
<tr><td class="{{ v.word }}">{{ v.word }}<td>{{ v.name }}<td>{{ v.said }}{% endfor %}</table>
{% if loss %}<h2>Loss of one batch, overfitted</h2>
<img src="data:image/png;base64,{{ loss }}">{% endif %}
<h2>The batch as the model sees it</h2>
<p>After augmentation: crop, flip and colour are drawn once a view. Above pictures in the order
shown, a row a view; below the mel of the same time, where what is heard must stand below what makes
it, or the stretches of waveform that the method cuts.</p>
{% for key, picture in clips %}
<h3>{{ key }}</h3><img src="data:image/png;base64,{{ picture }}">{% endfor %}
""")


def write_page(path: Path, trial: "Trial", verdicts: "list[Verdict]") -> None:
    """One self-contained HTML file."""
    batch = trial.batch
    clips = [(batch.keys[i], _clip_png(batch, i)) for i in range(min(len(batch), MAX_CLIPS))]
    loss = _loss_png(trial.losses) if trial.losses else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = PAGE.render(trial=trial, verdicts=verdicts, clips=clips, loss=loss, style=STYLE)
    path.write_text(page)


def denormalised(video: Tensor) -> Tensor:
    """(..., 3, T, H, W) as the model gets it -> uint8 (..., T, H, W, 3)."""
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) * 255 for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (video * std + mean).round().clamp(0, 255).byte().movedim(-4, -1)


def _clip_png(batch: Batch, number: int) -> str:
    """A row of frames for each view, over the sound of the clip where any is read."""
    shown = denormalised(batch.video[number])
    views = shown if batch.views > 1 else shown.unsqueeze(0)
    heard = batch.mel is not None or batch.wave is not None
    drawn, axes = figure(len(views) + heard, 10, 1.5 * (len(views) + heard))
    for above, video in zip(axes, views, strict=False):
        _show_frames(above, video)
    if batch.mel is not None:
        _show_mel(axes[-1], batch.mel[number])
    elif batch.wave is not None:
        _show_waveforms(axes[-1], batch.wave[number])
    return png(drawn)


def _show_frames(axes: Any, video: Tensor) -> None:
    frames = len(video)
    count = min(frames, STRIP_FRAMES)
    width = frames / count  # of a picture, in frames; it stands over the sound around its middle
    for number in range(count):
        shown = video[int((number + 0.5) * width)].numpy()
        axes.imshow(shown, extent=(number * width, (number + 1) * width, 0, width))
    axes.set(xlim=(0, frames), ylim=(0, width), yticks=[], xticks=[])


def _show_mel(axes: Any, mel: Tensor) -> None:
    """On the frames' axis."""
    length = mel.shape[1] / MEL_SLICES_PER_FRAME
    axes.imshow(mel.numpy(), origin="lower", aspect="auto", extent=(0, length, 0, len(mel)))
    axes.set(xlim=(0, length), xlabel="frame", ylabel="mel band")


def _show_waveforms(axes: Any, wave: Tensor) -> None:
    """The first channel of each stretch, one above the other."""
    for number, stretch in enumerate(wave):
        axes.plot(stretch[0].numpy() + 2 * number, linewidth=0.3)
    axes.set(xlim=(0, wave.shape[-1]), yticks=[], xlabel="sample", ylabel="waveform")


def _loss_png(losses: list[float]) -> str:
    drawn, (axes,) = figure(1, 6, 2)
    axes.plot(range(1, len(losses) + 1), losses)
    axes.set(xlabel="step", ylabel="loss")
    return png(drawn)
