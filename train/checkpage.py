"""The page of `train check`: table, loss, and each clip of the batch as the model sees it."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.format import MEL_SLICES_PER_FRAME
from train.augment import IMAGENET_MEAN, IMAGENET_STD
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
<p>After augmentation: crop, flip and colour are drawn once a clip. Above pictures over time, below
the mel of the same time; what is heard must stand below what makes it.</p>
{% for key, picture in clips %}
<h3>{{ key }}</h3><img src="data:image/png;base64,{{ picture }}">{% endfor %}
""")


def write_page(path: Path, trial: "Trial", verdicts: "list[Verdict]") -> None:
    """One self-contained HTML file."""
    batch = trial.batch
    pictures = denormalised(batch.video)
    clips = [
        (batch.keys[i], _clip_png(pictures[i], batch.mel[i]))
        for i in range(min(len(batch), MAX_CLIPS))
    ]
    loss = _loss_png(trial.losses) if trial.losses else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = PAGE.render(trial=trial, verdicts=verdicts, clips=clips, loss=loss, style=STYLE)
    path.write_text(page)


def denormalised(video: Tensor) -> Tensor:
    """(B, 3, T, H, W) as the model gets it -> uint8 (B, T, H, W, 3)."""
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) * 255 for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (video * std + mean).round().clamp(0, 255).byte().permute(0, 2, 3, 4, 1)


def _clip_png(video: Tensor, mel: Tensor) -> str:
    """Frames side by side over the mel, on one axis in frames."""
    frames, slices = len(video), mel.shape[1]
    count = min(frames, STRIP_FRAMES)
    width = frames / count  # of a picture, in frames; it stands over the sound around its middle
    drawn, (above, below) = figure(2, 10, 3)
    for number in range(count):
        shown = video[int((number + 0.5) * width)].numpy()
        above.imshow(shown, extent=(number * width, (number + 1) * width, 0, width))
    above.set(xlim=(0, frames), ylim=(0, width), yticks=[], xticks=[])
    length = slices / MEL_SLICES_PER_FRAME
    below.imshow(mel.numpy(), origin="lower", aspect="auto", extent=(0, length, 0, len(mel)))
    below.set(xlim=(0, frames), xlabel="frame", ylabel="mel band")
    return png(drawn)


def _loss_png(losses: list[float]) -> str:
    drawn, (axes,) = figure(1, 6, 2)
    axes.plot(range(1, len(losses) + 1), losses)
    axes.set(xlabel="step", ylabel="loss")
    return png(drawn)
