"""The bench measures what it says: equal facts on both ways, right ratios, a readable table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import (
    __main__ as program,
    cluster,
    duplicates,
    faces,
    growing,
    media,
    naive,
    ours,
    page,
    planning,
)
from bench.goals import GOALS, Measured
from bench.memory import peak_mib
from bench.stopwatch import interleaved, ratio, timed
from manifests import schema
from pipeline.format import decode_npy
from tests.pipeline.clips import make_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("bench") / "clip.mp4", seconds=3, size="320x240")


def test_naive_and_ours_agree_on_the_facts(clip: Path) -> None:
    plain = naive.sample(clip, faces=True, size=(320, 240))
    made = ours.sample(clip, ours.config("auto"))
    meta = ours.meta(made)
    assert plain.pictures == meta["frames"] == 30
    assert plain.faces == [None] * 30
    assert meta["faces"] == []
    mel = decode_npy(made.members["mel.npy"]).astype(np.float32)
    assert mel.shape == (80, 90)
    centred = plain.mel[:, :90]  # librosa's slices lie half a hop earlier
    assert abs(float(np.median(mel)) - float(np.median(centred))) < 0.5


def test_both_ways_make_a_tar(clip: Path) -> None:
    for data in (
        ours.shard(clip, ours.config("off")),
        naive.shard(clip, faces=False, size=(320, 240)),
    ):
        assert data[257:262] == b"ustar"
        assert len(data) % 512 == 0


def test_ratio_is_of_the_quickest_rounds() -> None:
    spent = {"ours": [5.0, 4.0, 9.0], "floor": [2.0, 8.0, 3.0]}
    assert ratio(spent, "ours", "floor") == 2.0


def test_every_round_runs_every_way_after_one_to_warm_up() -> None:
    order: list[str] = []
    ways = {name: (lambda name=name: order.append(name)) for name in "ab"}
    spent = interleaved(ways, 2)
    assert order == ["a", "b"] * 3
    assert {name: len(rounds) for name, rounds in spent.items()} == {"a": 2, "b": 2}


def test_slow_ways_run_in_the_first_round_only() -> None:
    order: list[str] = []
    ways = {name: (lambda name=name: order.append(name)) for name in "ab"}
    spent = interleaved(ways, 3, once=["b"])
    assert order == ["a", "a", "b", "a", "a"]
    assert {name: len(rounds) for name, rounds in spent.items()} == {"a": 3, "b": 1}


def test_time_of_children_counts() -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    assert timed(lambda: subprocess.run([sys.executable, "-c", busy], check=True)) >= 0.2


def test_goals_know_both_directions() -> None:
    assert GOALS["kinetics"].is_met(0.9) and not GOALS["kinetics"].is_met(0.96)
    assert GOALS["faster"].is_met(11) and not GOALS["faster"].is_met(9)


def test_table_and_json_say_the_same(tmp_path: Path) -> None:
    lines = [
        Measured("kinetics", "a.mp4", 0.9, 1.5, {"rounds": {"ours": [0.2]}}),
        Measured("head720", "b.mp4", 1.9, 18.0),
        Measured("other", "c.mp4", 3.0, 20.0),
    ]
    machine = page.machine()
    text = page.rendered(lines, machine)
    rows = [row for row in text.splitlines() if ".mp4" in row]
    assert [row.split()[-1] for row in rows] == ["met", "MISSED", "20"]
    assert "<= 0.95 x" in rows[0] and "1.5" in rows[0]
    assert machine["ffmpeg"] in text
    page.save(tmp_path / "bench.json", lines, machine)
    stored = json.loads((tmp_path / "bench.json").read_text())
    assert [line["met"] for line in stored["lines"]] == [True, False, None]
    assert stored["lines"][0]["value"] == 0.9


def test_coverage_and_error_by_hand() -> None:
    face = np.zeros((68, 2), np.float32)
    face[45] = (10, 0)  # outer eye corners are 10 apart
    found = [face + np.float32(1), None, face]
    assert faces.coverage([face, face, None], found) == 0.5
    assert faces.error([face, face, None], found) == pytest.approx(np.sqrt(2) / 10)


def test_generated_manifest_is_a_manifest_and_plans(tmp_path: Path) -> None:
    rows = planning.generated(25_000)
    assert len(rows) == 25_000
    assert not schema.validate(rows)
    planning.write_generated(25_000, tmp_path / "manifest.parquet")
    cost = planning.plan(tmp_path / "manifest.parquet", tmp_path / "out")
    assert cost["shards"] > 100
    assert cost["peak_mib"] > 0


def test_peak_memory_of_this_process() -> None:
    assert peak_mib() > 20


def test_for_the_cluster_no_talking_heads_are_rendered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> Path:
        raise AssertionError("rendered for nothing")

    monkeypatch.setattr(media, "_head", refuse)
    monkeypatch.setattr(media, "_kinetics", lambda folder: folder / "clip.mp4")
    monkeypatch.setattr(
        cluster, "measure", lambda file, rounds: [Measured("cluster", file.name, rounds)]
    )
    cores = os.sched_getaffinity(0)
    [line] = program._measured(program.Options(only="cluster", out=tmp_path / "b.json", quick=True))
    assert (line.subject, line.value) == ("kinetics-like 340x256@30", 2)
    assert os.sched_getaffinity(0) == cores


@pytest.mark.slow
def test_what_a_shard_costs_beside_its_clips(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "FEW", 1)
    monkeypatch.setattr(cluster, "MANY", 4)
    [line] = cluster.measure(media.Media("clip", "kinetics", clip, True), 1)
    assert line.facts["cpu_seconds_a_clip"] > 0
    assert line.facts["cpu_seconds_a_shard"]["local"] > 0
    assert line.value == pytest.approx(
        line.facts["cpu_seconds_a_shard"]["ray"] / line.facts["cpu_seconds_a_clip"]
    )


@pytest.mark.slow
def test_living_with_a_large_set_is_measured_step_by_step() -> None:
    lines = list(growing.measure(2_000))
    steps = [name for step in growing.STEPS for name in (f"scale {step}", f"scale {step} memory")]
    assert [line.goal for line in lines] == steps
    assert all(line.value > 20 for line in lines if line.goal.endswith("memory"))


@pytest.mark.slow
def test_copies_are_planted_and_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, work = tmp_path / "raw", tmp_path / "work"
    (root / "a b").mkdir(parents=True)
    make_clip(root / "a b" / "50% ü.mp4", seconds=5, size="160x120")
    duplicates.main(root, work)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if " | " in line]
    counts = {row[0].strip("| "): row[1:] for row in rows}
    assert set(duplicates.WAYS) < set(counts)
    assert {counts[way][0] for way in duplicates.WAYS} == {"1"}
    assert counts["rescaled to 60 %"][1] == "1"  # near: by its pictures and its sound


def test_peak_memory_is_that_of_the_program_and_not_of_who_started_it() -> None:
    held = bytes(300 << 20)
    ask = "from bench.memory import peak_mib; print(peak_mib())"
    done = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 100 < peak_mib() and len(held)
