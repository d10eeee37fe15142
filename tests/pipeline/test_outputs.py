"""`pipeline.outputs`: what the files say, and sentences about files that say nothing."""

import json
from pathlib import Path

import pytest

from pipeline import PROFILES
from pipeline.format import FormatError, decode
from pipeline.outputs import NotFinishedError, Outputs, Place
from tests.pipeline.fabricate import edit_json, fabricate


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return fabricate(tmp_path / "out", PROFILES["glcm"])


def test_the_plan_and_the_configuration_are_read(out: Path) -> None:
    outputs = Outputs(out)
    assert (outputs.plan.name, outputs.plan.planned_rows) == ("demo-glcm", 8)
    assert [shard.name for shard in outputs.plan.shards] == ["train-000000", "train-000001"]
    assert outputs.config == PROFILES["glcm"]


def test_a_sample_is_read_at_its_place(out: Path) -> None:
    outputs = Outputs(out)
    places = list(outputs.places())
    assert len(places) == 6
    for place in places:
        assert decode(outputs.read_members(place)).meta["key"] == place.key


def test_a_shard_not_committed_has_no_sidecar(out: Path) -> None:
    (out / "shards/train-000001.json").unlink()
    assert [sidecar is not None for _, sidecar in Outputs(out).sidecars()] == [True, False]


def test_a_sidecar_can_be_read_without_its_samples(out: Path) -> None:
    path = out / "shards/train-000000.json"
    nasty = json.loads(path.read_text())["errors"]
    nasty[0]["uri"] = ']"],"errors":["samples":['
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "errors": nasty}, separators=(",", ":"))
    )
    light = Outputs(out).sidecar("train-000000", with_samples=False)
    assert light is not None
    assert (light.samples, light.nsamples, light.errors) == ([], 3, nasty)
    edit_json(path)  # white space between the marks: read as a whole
    other = Outputs(out).sidecar("train-000000", with_samples=False)
    assert other is not None
    assert len(other.samples) == 3


def test_what_is_not_there_is_named_with_its_command(tmp_path: Path) -> None:
    with pytest.raises(NotFinishedError, match="pipeline shards"):
        _ = Outputs(tmp_path).plan
    with pytest.raises(NotFinishedError, match="pipeline finalize"):
        Outputs(tmp_path).index()


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "", "a/b"])
def test_a_shard_name_with_a_path_is_refused(out: Path, name: str) -> None:
    with pytest.raises(FormatError, match="no shard name"):
        Outputs(out).tar_path(name)


@pytest.mark.parametrize(
    "change", [{"nsamples": "3"}, {"samples": None}, {"shard": "other"}, {"schema": 9}]
)
def test_a_sidecar_of_another_shape_is_refused(out: Path, change: dict[str, object]) -> None:
    edit_json(out / "shards/train-000000.json", **change)
    with pytest.raises(FormatError, match="train-000000"):
        Outputs(out).sidecar("train-000000")


def test_a_plan_of_another_shape_is_refused(out: Path) -> None:
    edit_json(out / "plan.json", parts=[{"name": "x", "shards": [{}]}])
    with pytest.raises(FormatError, match=r"plan.json lacks"):
        _ = Outputs(out).plan


@pytest.mark.parametrize(("offset", "size"), [(7, 4096), (0, 0), (0, 1 << 40), (1 << 30, 512)])
def test_a_wrong_place_is_refused(out: Path, offset: int, size: int) -> None:
    with pytest.raises(FormatError, match="train-000000"):
        Outputs(out).read_members(Place("demo/clip000", "train-000000", offset, size))
