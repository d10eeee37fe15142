"""Counts on the meta device against the table of methods §9."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from train.__main__ import describe as command
from train.describe import DescribeConfig, describe, describe_config
from train.errors import UsageError
from train.methods import method_named, preset_named
from train.methods.glcm import PRESETS, GlcmConfig

CODE_STRIDES = (1, 2, 2, 1)
SF = replace(PRESETS["glcm_r18"], block="sf")

TABLE = [
    (PRESETS["glcm_r18"], 38.1, 118.1, 352.8),
    (PRESETS["glcm_code"], 19.95, 11.7, 33.8),
    (replace(SF, strides=CODE_STRIDES), 24.8, 22.7, 66),
    (SF, 24.8, 71.7, 213),
    (replace(PRESETS["glcm_r18"], strides=CODE_STRIDES), 38.1, 39.7, 117.4),
    (PRESETS["exact16"], 24.8, 93.4, 278),
    (replace(PRESETS["glcm_r18"], beta=1, D_l=512), 71.3, 555, 1656),
    (PRESETS["glcm_r50"], 37.4, 113.8, 340),
]
"""Millions of parameters, GFLOP a clip forward, and forward and backward."""


OTHERS = [
    ("avid", "video", "15.38"),
    ("avid", "audio", "4.73"),
    ("tempssl", "", "72.0"),
    ("coattention", "visual audio coattention", "15.15"),
    ("coattention", "decision", "6.0"),
    ("moco", "encoder project", "33.3"),
    ("vdim", "", "34.4"),
    ("cpc", "", "34.2"),
    ("dpc", "", "34.0"),
    ("avts", "", "37.7"),
    ("avslowfast", "", "40.3"),
]
"""First presets: parts (none: all), and millions of parameters in them as README has them."""
README = (Path(__file__).parents[2] / "README.md").read_text()


def unpooled_projections(config: GlcmConfig, shapes: dict[str, list[int]]) -> float:
    """GFLOP that projecting before pooling, as the table counts, costs more than the reverse."""

    def volume(name: str) -> int:
        _, frames, height, width = shapes[name]
        return frames * height * width

    slow, fast = volume("slow"), volume("fast")
    cells, slices = slow // config.n_slow, 3 * config.frames
    before = shapes["slow"][0] * config.D_g * slow + shapes["fast"][0] * config.D_l * fast
    after = shapes["slow"][0] * config.D_g * cells + shapes["fast"][0] * config.D_l * config.frames
    sound = shapes["audio"][0] * config.D_g * (slices - 1)
    return 2 * (before - after + sound) / 1e9


def of_preset(name: str) -> dict[str, Any]:
    return describe(DescribeConfig(preset_named("glcm", name), "glcm", name))


@pytest.mark.parametrize(("config", "millions", "forward", "both"), TABLE)
def test_table_of_the_methods(config: GlcmConfig, millions: float, forward: float, both: float):
    facts = describe_config("glcm", config)
    assert facts["parameters"]["total"] / 1e6 == pytest.approx(millions, rel=2e-3)
    extra = unpooled_projections(config, facts["shapes"])
    assert facts["gflop_per_clip"]["forward"] + extra == pytest.approx(forward, rel=5e-3)
    assert facts["gflop_per_clip"]["forward_backward"] + 3 * extra == pytest.approx(both, rel=1e-2)


@pytest.mark.parametrize(("method", "parts", "millions"), OTHERS)
def test_the_other_methods_are_as_large_as_readme_says(method: str, parts: str, millions: str):
    with torch.device("meta"):
        model = method_named(method).module(preset_named(method))
    chosen = [model.get_submodule(name) for name in parts.split() or [""]]
    total = sum(weight.numel() for module in chosen for weight in module.parameters())
    assert f"{total / 1e6:.{len(millions.split('.')[1])}f}" == millions
    table = README.split("| METHOD | learns by |")[1]
    row = next(
        line for line in table.splitlines() if line.startswith("|") and f"`{method}`" in line
    )
    assert millions in re.findall(r"[\d.]*\d", row.split("|")[-2])


def test_the_code_preset_is_the_released_model():
    facts = of_preset("glcm_code")
    assert facts["parameters"]["total"] == 19_947_688
    assert facts["shapes"]["slow"] == [512, 4, 7, 7]
    assert facts["shapes"]["fast"] == [64, 32, 7, 7]
    assert facts["shapes"]["audio"] == [512, 96]


def test_default_encoders_cost_what_was_counted():
    facts = of_preset("glcm_r18")
    cost: dict[str, Any] = facts["gflop_per_clip"]
    assert cost["slow"] == pytest.approx(108.5, rel=1e-3)
    assert cost["fast"] == pytest.approx(7.9, rel=5e-3)
    assert cost["audio"] == pytest.approx(0.74, rel=1e-2)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_json_and_adds_up(preset: str):
    facts = of_preset(preset)
    assert json.loads(json.dumps(facts))["preset"] == preset
    parts = facts["parameters"]
    assert parts["total"] == sum(n for name, n in parts.items() if name != "total")


def test_exact16_reaches_the_grid_of_the_paper():
    assert of_preset("exact16")["shapes"]["attention"] == [256]


def test_unknown_names_answer_with_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown method 'glmc'; known: .*glcm"):
        method_named("glmc")
    with pytest.raises(UsageError, match="unknown preset 'big' of glcm; known: glcm_r18"):
        preset_named("glcm", "big")


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert command(list(words)) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def test_the_command_describes_presets_options_batches_and_stored_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert told(capsys)["preset"] == "glcm_r18"
    small = told(capsys, "--preset", "tiny")
    frames = told(capsys, "--preset", "tiny", "--model.n-slow", "8")
    assert frames["shapes"]["slow"][1] == 2 * small["shapes"]["slow"][1]
    slow = [facts["gflop_per_clip"]["slow"] for facts in (small, frames)]
    assert slow[1] == pytest.approx(2 * slow[0], rel=1e-3)
    many = told(capsys, "--preset", "tiny", "--batch-size", "32")
    assert many["gflop_per_clip"]["slow"] == small["gflop_per_clip"]["slow"]
    assert many["gflop_per_clip"]["loss_g"] > small["gflop_per_clip"]["loss_g"]
    stored = tmp_path / "config.json"
    stored.write_text(json.dumps({"method": "glcm", "preset": "tiny", "model": frames["config"]}))
    assert told(capsys, "--config", str(stored)) == frames
    assert told(capsys, "--objective", "l")["config"]["objective"] == "l"
    with pytest.raises(UsageError, match="batch_size is 1; a contrast needs 2"):
        command(["--batch-size", "1"])
