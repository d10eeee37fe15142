"""Temporal self-supervision: whole losses against loops over clips and views, on tiny networks.

Oracles take the networks' outputs and write the paper's sums out one by one.
"""

import math
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.train.test_contrast import naive
from train.methods import METHODS
from train.methods.tempssl import PRESETS, TempSsl, TempSslConfig, resize
from train.models.spectrogram import LogSpectrogram
from train.objectives.queues import Queue

MINI = TempSslConfig(
    frames=4, crop=16, wave_rate_hz=2400, depth=10, width=4, audio_depth=10, audio_width=4,
    n_fft=64, stft_step=32, spectrogram_side=32, hidden=8, D=6, queue=40, positives=3,
    queue_negatives=8,
)  # fmt: skip
CLIPS = 4
SWITCHES: dict[str, dict[str, Any]] = {
    "paper": {},
    "without positives": {"positives": 0},
    "without negatives": {"queue_negatives": 0},
    "hard": {"negatives_from": 0.1},
    "easy": {"negatives_from": 0.8},
    "uniform": {"weights": "uniform"},
    "unaligned": {"aligned": False},
    "shared queue": {"shared_queue": True},
    "with aa": {"terms": ("vv", "va", "av", "aa")},
    "without av": {"terms": ("vv",)},
    "without vv": {"terms": ("va", "av")},
    "without tasks": {"tasks": ()},
    "without order": {"tasks": ("speed", "direction")},
    "video": {"modalities": "video", "terms": ("vv",)},
    "audio": {"modalities": "audio", "terms": ("aa",)},
    "spectrogram": {"modalities": "audio", "terms": ("aa",), "sound_speed": "spectrogram"},
    "random step": {"modalities": "audio", "terms": ("aa",), "sound_speed": "spectrogram",
                    "rand_stft_step": True},
    "nnclr": {"contrast": "nnclr"},
    "simclr": {"contrast": "simclr"},
    "simsiam": {"contrast": "simsiam"},
}  # fmt: skip
"""Every row of the paper's Tables 1 to 3."""


def batch_of(config: TempSslConfig, clips: int = CLIPS, seed: int = 0) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: (clips, *shape) for name, shape in config.input_shapes.items()}
    kinds = {"speed": len(config.speeds), "backward": 2, "order": 3, "open_speeds": 1,
             "stft_step": len(config.stft_steps)}  # fmt: skip
    numbers = {
        name: torch.randint(kinds[name], (clips, width), generator=generator)
        for name, width in config.input_numbers.items()
    }
    numbers["open_speeds"] += len(config.speeds)
    wave = torch.rand(shapes["wave"], generator=generator) - 0.5 if "wave" in shapes else None
    return SimpleNamespace(
        video=torch.randn(shapes["video"], generator=generator),
        wave=wave,
        mel=None,
        numbers=numbers,
        instance=torch.arange(clips) * 3,
    )


def model_of(config: TempSslConfig = MINI, warm: int = 0) -> TempSsl:
    """A model whose queues hold `warm` vectors."""
    torch.manual_seed(0)
    model = TempSsl(config)
    for queue in model.memory.values():
        queue.append(torch.randn(warm, config.D))  # type: ignore[operator]
    return model


def stored(model: TempSsl, name: str) -> Tensor:
    queue = model.memory[name]
    assert isinstance(queue, Queue)
    return queue.entries


@torch.no_grad()
def embedded(model: TempSsl, batch: SimpleNamespace) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Projections and predictions by modality, each (clips, view, D)."""
    encoded = model._encode(batch)
    raw = {m: model.project[m](encoded[m].flatten(0, 1)) for m in encoded}
    predicted = {m: net(raw[m]) for m, net in model.predict.items()} or raw
    shape = (len(batch.instance), 2, -1)
    return ({m: x.view(shape) for m, x in raw.items()},
            {m: x.view(shape) for m, x in predicted.items()})  # fmt: skip


@pytest.mark.parametrize("name", ["paper", "without positives", "without negatives", "hard", "easy",
                                  "uniform", "unaligned", "shared queue", "with aa"])  # fmt: skip
def test_terms_equal_naive_loops(name):
    config = replace(MINI, **SWITCHES[name])
    model, batch = model_of(config, warm=40).eval(), batch_of(config)
    facts = model(batch)
    raw, predicted = embedded(model, batch)
    for m, n in config.terms:
        queue = stored(model, "shared" if config.shared_queue else n)
        losses = []
        for i in range(CLIPS):
            for view in range(2):
                other = 1 - view if m == n or not config.aligned else view
                negatives = [raw[x][j, k] for x in {m, n} for j in range(CLIPS) if j != i
                             for k in range(2)]  # fmt: skip
                losses.append(naive(
                    predicted[m][i, view], raw[n][i, other], negatives, list(queue),
                    k=config.positives, m=config.queue_negatives,
                    q=int(config.negatives_from * 40), uniform=config.weights == "uniform",
                ))  # fmt: skip
        assert facts[f"loss_{m}{n}"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def cosine(x: Tensor, y: Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm())) / MINI.tau


def test_simclr_simsiam_and_nnclr_equal_naive_loops():
    """Of the term vv: softmax over the batch, plain similarity, and the neighbour in its place."""
    for name in ("simclr", "simsiam", "nnclr"):
        config = replace(MINI, contrast=name)
        model, batch = model_of(config, warm=40).eval(), batch_of(config)
        facts = model(batch)
        raw, predicted = embedded(model, batch)
        rows = [(i, k) for i in range(CLIPS) for k in range(2)]
        total = 0.0
        for i, k in rows:
            x, y = predicted["v"][i, k], raw["v"][i, 1 - k]
            if name == "simsiam":
                total -= cosine(x, y)
                continue
            if name == "nnclr":  # NNCLR Eq. 3: the neighbour against all predictions
                held = list(stored(model, "v"))
                near = held[max(range(len(held)), key=[cosine(y, e) for e in held].__getitem__)]
                scores = [cosine(near, predicted["v"][j, h]) for j, h in rows if j != i]
                positive = cosine(near, x)
            else:
                scores = [cosine(x, raw["v"][j, h]) for j, h in rows if j != i]
                positive = cosine(x, y)
            below = math.exp(positive) + sum(math.exp(score) for score in scores)
            total -= math.log(math.exp(positive) / below)
        assert facts["loss_vv"].item() == pytest.approx(total / len(rows), rel=1e-4)


def test_temporal_losses_equal_loops():
    """Each head with its own views: speed and direction of both, order of view 0 and view 1."""
    model, batch = model_of().eval(), batch_of(MINI)
    facts, encoded = model(batch), model._encode(batch)
    expected = {}
    for m in "va":
        for task, label in (("speed", "speed"), ("direction", "backward")):
            losses = [
                F.cross_entropy(model.heads[f"{task}_{m}"](encoded[m][i, k][None]),
                                batch.numbers[label][i, k][None]).item()
                for i in range(CLIPS) for k in range(2)
            ]  # fmt: skip
            expected[f"loss_{task}_{m}"] = sum(losses) / len(losses)
        for n in "va":
            losses = []
            for i in range(CLIPS):
                pair = torch.cat([encoded[m][i, 0], encoded[n][i, 1]])[None]
                logits = model.heads[f"order_{m}{n}"](pair)
                losses.append(F.cross_entropy(logits, batch.numbers["order"][i]).item())
            expected[f"loss_order_{m}{n}"] = sum(losses) / len(losses)
    for name, value in expected.items():
        assert facts[name].item() == pytest.approx(value, rel=1e-4)
    crl = sum(facts[f"loss_{term}"].item() for term in ("vv", "va", "av"))
    assert facts["loss"].item() == pytest.approx(crl + 0.5 * sum(expected.values()), rel=1e-4)


@pytest.mark.parametrize("name", SWITCHES)
def test_every_ablation_trains_all_it_has(name):
    config = replace(MINI, **SWITCHES[name])
    model = model_of(config)
    for step in range(3):
        model.zero_grad()
        facts = model(batch_of(config, seed=step))
        facts["loss"].backward()
    without = [
        n for n, w in model.named_parameters() if w.grad is None or not w.grad.isfinite().all()
    ]
    assert not without
    assert facts["loss"].isfinite()
    assert [n for n, x in facts.items() if x.requires_grad] == ["loss"]


def test_views_are_no_gradient_but_in_simclr():
    """Eq. 2: nothing flows through the second argument; predictors that look away leave nothing."""
    for name, reaches in (("paper", False), ("simsiam", False), ("simclr", True)):
        config = replace(MINI, tasks=(), **SWITCHES[name])
        model, batch = model_of(config, warm=40), batch_of(config)
        for net in model.predict.values():
            torch.nn.init.zeros_(net[-1].weight)  # type: ignore[index]
        model(batch)["loss"].backward()
        gradient = model.project["v"][0].weight.grad  # type: ignore[index]
        assert bool(gradient.any()) == reaches


@pytest.mark.parametrize("name", ["paper", "shared queue"])
def test_queues_take_the_mean_of_the_views_in_training_only(name):
    config = replace(MINI, **SWITCHES[name])
    model, batch = model_of(config, warm=5), batch_of(config)
    model.eval()(batch)
    assert all(int(queue.written) == 5 for queue in model.memory.values())  # type: ignore[arg-type]
    model.train()(batch)
    raw, _ = embedded(model, batch)
    means = {m: x.mean(dim=1) for m, x in raw.items()}
    if config.shared_queue:
        means = {"shared": (means["v"] + means["a"]) / 2}
    for m, mean in means.items():
        expected = F.normalize(mean, dim=1)
        torch.testing.assert_close(stored(model, m)[5 : 5 + CLIPS], expected)


def test_an_own_view_is_never_a_negative():
    """Two clips with one id are one clip: the loss of both is that of a batch with neither."""
    config = replace(MINI, contrast="simclr", terms=("vv",), modalities="video")
    model, batch = model_of(config).eval(), batch_of(config, clips=2)
    batch.instance = torch.tensor([7, 7])
    assert model(batch)["loss_vv"].item() == 0


def test_a_spectrogram_is_sped_up_as_if_it_were_cut_and_resized():
    config = replace(MINI, **SWITCHES["random step"])
    model, batch = model_of(config), batch_of(config)
    images = model._images(batch.wave.flatten(0, 1), batch.numbers)
    samples = 4 * 80
    for row, image in enumerate(images):
        clip, view = divmod(row, 2)
        speed = config.speeds[batch.numbers["speed"][clip, view]]
        step = (24, 32, 40)[batch.numbers["stft_step"][clip, view]]
        interval = batch.wave[clip, view, :, : speed * samples]
        decibel = LogSpectrogram(2400, 64, step, 33)(interval).transpose(2, 3)
        expected = F.interpolate(decibel, (32, 32), mode="bilinear", align_corners=False)[0]
        if batch.numbers["backward"][clip, view]:
            expected = expected.flip(2)
        torch.testing.assert_close(image, (expected + 100) / 70 - 1, atol=1e-4, rtol=1e-4)


def test_resize_is_interpolation_of_each_by_itself():
    x, steps = torch.randn(3, 1, 9, 20), torch.tensor([20, 7, 1])
    for size in ((5, 13), (14, 40)):
        found = resize(x, steps, size)
        for one, count, own in zip(x, steps, found, strict=True):
            expected = F.interpolate(one[None, ..., :count], size, mode="bilinear")[0]
            torch.testing.assert_close(own, expected)


def test_features_are_those_of_training_at_speed_1():
    model, batch = model_of().eval(), batch_of(MINI)
    clips = SimpleNamespace(video=batch.video[:, 0], wave=batch.wave[:, :1], mel=None)
    features, encoded = model.features(clips), model._encode(batch)
    torch.testing.assert_close(features["fv"].mean(dim=(2, 3, 4)), encoded["v"][:, 0])
    torch.testing.assert_close(features["fa"].mean(dim=2), encoded["a"][:, 0])
    assert model.feature_channels == {"fv": 32, "fa": 32}


def test_features_of_any_length_and_of_what_there_is():
    model = model_of().eval()
    clips = SimpleNamespace(video=torch.randn(2, 3, 20, 40, 24), wave=None, mel=None)
    features = model.features(clips)
    assert {name: tuple(x.shape) for name, x in features.items()} == {"fv": (2, 32, 3, 3, 2)}
    sound = SimpleNamespace(video=None, wave=torch.rand(2, 1, 2, 3200), mel=None)
    # Ten times the view's 320 samples: 320 columns, of which the network strides over 32.
    assert model.features(sound)["fa"].shape == (2, 32, 10)
    assert model.features(sound, wanted=("fv",)) == {}


def test_chances():
    model, batch = model_of().eval(), batch_of(MINI)
    batch.numbers["open_speeds"] = torch.tensor([[4], [4], [2], [1]])
    facts = model.with_controls(batch)
    assert facts["speed_a_accuracy_chance"].item() == pytest.approx((1 / 4 + 1 / 4 + 1 / 2 + 1) / 4)
    assert facts["direction_v_accuracy_chance"].item() == 0.5
    assert facts["order_av_accuracy_chance"].item() == pytest.approx(1 / 3)
    assert facts["v2a_r1_chance"].item() == 1 / CLIPS
    heads = {name for name in facts if name.endswith("_accuracy")}
    assert len(heads) == 8
    assert all(f"{name}_chance" in facts for name in heads)


def test_parameters_of_the_paper():
    """Encoders as published (see test_resnets), heads counted from Implementation Details."""
    with torch.device("meta"):
        model = TempSsl(PRESETS["r2plus1d_18"])
    count = sum(weight.numel() for weight in model.parameters())

    def head(c_in: int, hidden: int, c_out: int, norm_out: bool) -> int:
        total = 0
        for _ in range(hidden):
            total += c_in * 1024 + 2 * 1024
            c_in = 1024
        return total + c_in * c_out + (2 * c_out if norm_out else c_out)

    encoders = 31_300_125 + 21_278_400
    contrast = 2 * (head(512, 2, 256, True) + head(256, 1, 256, False))
    temporal = 2 * (head(512, 2, 4, False) + head(512, 2, 2, False)) + 4 * head(1024, 2, 3, False)
    assert count == encoders + contrast + temporal


@pytest.mark.parametrize(("changes", "said"), [
    ({"queue": 8192}, "do not fit into a queue of 8192"),
    ({"terms": ("va",)}, "expected va and av together"),
    ({"terms": ("vv",), "tasks": ()}, "nothing trains the encoder of sound"),
    ({"modalities": "video"}, "terms has av, va with modalities 'video'"),
    ({"terms": ("vv", "vv")}, "each of"),
    ({"speeds": (1, 4, 2)}, "rising"),
    ({"speeds": (1,)}, "cannot be told apart"),
    ({"rand_stft_step": True}, "goes with sound_speed"),
    ({"contrast": "moco"}, "contrast is 'moco'"),
    ({"modalities": "video", "terms": ("vv",), "shared_queue": True}, "needs modalities both"),
    ({"frames": 0}, "frames is 0"),
    ({"tau": 0.0}, "tau is 0.0"),
    ({"n_fft": 20_000}, "less than one window"),
    ({"negatives_from": 1.5}, "a part, 0 .. 1"),
])  # fmt: skip
def test_what_cannot_be_is_refused(changes, said):
    base = PRESETS["r2plus1d_18"]
    if "queue" in changes:
        changes = {**changes, "negatives_from": 0.8}
    with pytest.raises(ValueError, match=said):
        replace(base, **changes)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_queues_of_all_presets_have_room_for_the_ablations(preset, share):
    config = replace(PRESETS[preset], negatives_from=share)
    assert TempSslConfig(**asdict(config)) == config


def test_it_is_listed():
    assert METHODS["tempssl"].fps == 30
