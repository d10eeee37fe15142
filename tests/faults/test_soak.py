"""A short soak, and the ruler it holds to memory."""

import contextlib
import json
import math
import random
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from stores import open_objects
from tests.faults import soak
from tests.faults.kills import expected_codes
from tests.faults.memory import (
    BLOCK_SAMPLES,
    COURSE_POINTS,
    LEAST_LIFE_SECONDS,
    LEAST_SECONDS,
    Life,
    growth,
    slope,
)
from tests.faults.nodes import patient
from tests.faults.outages import KINDS, LONG, shelf
from tests.faults.places import Made
from tests.faults.soak_result import Result, not_flat, page_lines, read, verdict, write

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "where",
    [
        pytest.param({}, id="local"),
        pytest.param({"store": True, "long_pass": 130}, id="local, store"),
        pytest.param({"executor": "ray"}, id="ray"),
        pytest.param({"executor": "ray", "nodes": 2}, id="ray, nodes"),
        pytest.param({"executor": "ray", "nodes": 2, "store": True}, id="ray, nodes, store"),
    ],
)
def test_a_job_that_is_killed_again_and_again_comes_out_as_if_it_had_not(where, tmp_path):
    report = tmp_path / "soak.json"
    options = soak.Options(minutes=0.7, clips=120, pause=3, json=report, **where)
    assert soak.main(options) == 0
    found = read(report)
    assert found.problems == []
    assert found.rounds >= 1
    assert found.attempts >= found.rounds
    assert sum(found.kills.values()) >= 1
    assert str(tmp_path) not in report.read_text(), "a result names no place of this machine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"executor": "dask"}, "dask: expected local or ray"),
        ({"nodes": 2}, "needs --executor ray"),
        ({"executor": "ray", "nodes": 1}, "expected 0, or 2 and more"),
        ({"media": Path("no/such")}, "--media no/such: no such folder"),
        ({"json": Path("no/such/soak.json")}, "--json no/such/soak.json: its folder is not there"),
    ],
)
def test_what_cannot_be_soaked_is_refused(options, said):
    with pytest.raises(SystemExit, match=said):
        soak.main(soak.Options(**options))


def test_relative_places_are_those_of_where_it_was_started(tmp_path, monkeypatch):
    """A cluster changes the working folder; half an hour's result was lost by that."""
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = soak.Options(json=Path("soak.json"), media=Path("clips"), folder=Path("work"))
    seen = []

    @contextlib.contextmanager
    def elsewhere(options, folder):
        monkeypatch.chdir("/")
        seen.append((options.media, folder))
        yield SimpleNamespace(run=lambda: Result(options.stated()))

    monkeypatch.setattr(soak, "_prepared", elsewhere)
    assert soak.main(asked) == 0
    assert seen == [(tmp_path / "clips", tmp_path / "work")]
    assert read(tmp_path / "soak.json").problems == []


CLIPS_A_SECOND = 3


def lives(leak_mib_per_minute: float) -> list[Life]:
    """Processes of different sizes, killed at different ages, with noise of 3 MiB that lasts."""
    chance = random.Random(0)
    found = []
    for number in range(12):
        size, first = chance.uniform(80, 300), chance.uniform(10, 20)
        seconds = [first + step for step in range(chance.randrange(10, 90))]
        noise = [chance.gauss(0, 3) for _ in seconds]
        mib = [size + leak_mib_per_minute * s / 60 + n for s, n in zip(seconds, noise, strict=True)]
        clips = [CLIPS_A_SECOND * second for second in seconds]
        found.append(Life(seconds, mib, clips, born=60.0 * number))
    return found


@pytest.mark.parametrize("leak", [0.0, 12.0])
def test_a_leak_is_measured_over_processes_of_different_sizes_and_ages(leak):
    found = growth(lives(leak), 300.0)
    assert found.processes == 12
    assert found.mib_per_minute is not None and found.mib_per_1000_clips is not None
    assert abs(found.mib_per_minute.value - leak) < 3 * found.mib_per_minute.error < 10
    clips = 1000 / (60 * CLIPS_A_SECOND)
    assert found.mib_per_1000_clips.value == pytest.approx(found.mib_per_minute.value * clips)
    assert found.peaks_mib_per_minute is not None  # sizes were drawn, so they cannot be told apart
    assert abs(found.peaks_mib_per_minute.value) < 3 * found.peaks_mib_per_minute.error


def test_the_error_of_a_slope_is_how_far_it_misses():
    """Over many draws of noise that comes in blocks of half a minute, which look like trends."""
    chance, misses = random.Random(0), []
    for _ in range(200):
        levels = [chance.gauss(0, 5) for _ in range(20) for _ in range(BLOCK_SAMPLES)]
        found = slope([([float(second) for second in range(len(levels))], levels)])
        assert found is not None
        misses.append(found.value / found.error)
    assert 0.8 < sum(miss * miss for miss in misses) / len(misses) < 1.6


@pytest.mark.parametrize(
    ("leak", "seconds", "said"),
    [(0.0, 600, "flat"), (12.0, 600, "GROWS"), (12.0, 100, "watched too briefly")],
)
def test_the_verdict_on_memory(leak, seconds, said):
    chance = random.Random(0)
    times = [float(second) for second in range(seconds)]
    mib = [100 + leak * second / 60 + chance.gauss(0, 1) for second in times]
    found = growth([Life(times, mib, times)], 200.0)
    assert verdict("driver", found).startswith(said)
    assert bool(not_flat({"driver": found})) == (said == "GROWS")


@pytest.mark.parametrize(("seconds", "said"), [(150, "cannot be told"), (900, "flat")])
def test_one_step_is_no_leak(seconds, said):
    """What a driver showed: 8 MiB at once after a minute, and nothing for as long as it lived."""
    chance = random.Random(0)
    times = [float(second) for second in range(10, seconds)]
    mib = [189 + 8 * (second > 60) + chance.gauss(0, 0.1) for second in times]
    found = growth([Life(times, mib, times)], 200.0)
    assert found.mib_per_minute is not None and found.mib_per_minute.value > 0
    assert verdict("driver", found) == said
    assert not_flat({"driver": found}) == []


WARMING_SECONDS = 60.0


@pytest.mark.parametrize(("leak", "said"), [(0.0, "flat"), (3.0, "GROWS")])
def test_what_fills_in_the_first_minutes_is_no_leak(leak, said):
    """Caches of 30 MiB that fill within minutes, with and without a leak beside them."""
    chance, found = random.Random(0), []
    for _ in range(3):
        seconds = [float(second) for second in range(900)]
        filled = [30 * (1 - math.exp(-second / WARMING_SECONDS)) for second in seconds]
        mib = [
            100 + f + leak * s / 60 + chance.gauss(0, 1)
            for s, f in zip(seconds, filled, strict=True)
        ]
        found.append(Life(seconds, mib, seconds))
    grown = growth(found, 200.0)
    assert grown.mib_per_minute is not None and grown.late_mib_per_minute is not None
    assert grown.mib_per_minute.value > leak + 0.5, "all of a life tells both"
    assert grown.late_mib_per_minute.value == pytest.approx(leak, abs=0.1)
    assert verdict("driver", grown).startswith(said)


def test_short_lives_have_no_later_half():
    seconds = [float(second) for second in range(int(2 * LEAST_LIFE_SECONDS))]
    found = growth([Life(seconds, seconds, seconds) for _ in range(20)], 0)
    assert found.mib_per_minute is not None and found.late_mib_per_minute is None


def test_the_course_of_the_longest_life_is_kept():
    long, short = [float(second) for second in range(500)], [0.0, 1.0]
    found = growth([Life(short, short, short), Life(long, [2 * s for s in long], long)], 0)
    assert [found.course[0], found.course[-1]] == [(0, 0), (499, 998)]
    assert len(found.course) == COURSE_POINTS
    assert all(mib == 2 * second for second, mib in found.course)


def test_a_result_is_read_as_it_was_written(tmp_path):
    unsure = growth(
        [Life([0.0, 40.0, 100.0, 130.0], [1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0])], 5
    )
    assert unsure.mib_per_minute is not None and math.isinf(unsure.mib_per_minute.error)
    made = Result(
        {"seed": 1}, codes={-9: 2, 0: 1}, kills={"node killed": 3}, memory={"driver": unsure}
    )
    write(made, tmp_path / "soak.json")
    assert "Infinity" not in (tmp_path / "soak.json").read_text()
    assert read(tmp_path / "soak.json") == made


@pytest.mark.parametrize("name", ["soak.json", "soak-memory.json"])
def test_the_page_says_what_the_soak_found(name):
    """The `--json` of soaks with nodes and a store at once: half an hour of faults, a long pass."""
    found, page = read(ROOT / "docs" / name), (ROOT / "docs" / "clusters.md").read_text()
    assert found.problems == []
    assert (found.options["executor"], found.options["nodes"]) == ("ray", 2)
    assert found.options["store"] is True
    assert found.options["media"] is True
    assert found.minutes >= found.options["minutes"]
    assert found.rounds >= 20 or found.long_pass["driver"].most_clips > 4000
    for line in page_lines(found):
        assert line in page, f"docs/clusters.md does not say: {line}"


def test_two_samples_are_no_certainty():
    found = slope([([0.0, 1.0], [5.0, 7.0])])
    assert found is not None and found.value == 2 and math.isinf(found.error)


def test_the_clips_of_a_process_are_those_of_its_sidecars(tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    write = partial(write_sidecar, shards)
    write("before", 7, psutil.Process().pid)
    made, here = Made(tmp_path, workers=2), psutil.Process()
    (tmp_path / "plan.json").write_text(json.dumps({"parts": [{"shards": [None] * 5}]}))
    assert not made.is_in_the_middle()
    write("one", 10, here.pid)
    write("two", 6, 1)
    assert made.is_in_the_middle()
    assert [made.clips(here, role) for role in ("driver", "worker")] == [16, 10]
    write("three", 2, here.pid)
    assert not made.is_in_the_middle()  # one of five is left, the last
    assert made.clips(here, "driver") == 18


def write_sidecar(shards, name, rows, pid):
    (shards / f"{name}.json").write_text(json.dumps({"rows": rows, "run": {"pid": pid}}))


def test_a_node_has_more_time_to_start_than_ray_gives_it():
    """A machine with other work makes them late."""
    late = iter([RuntimeError("no such node"), RuntimeError("deadline exceeded"), {"node": 1}])

    def ask(address):
        assert address == "here"
        if isinstance(said := next(late), RuntimeError):
            raise said
        return said

    assert patient(ask, pause=0.01)("here") == {"node": 1}
    with pytest.raises(RuntimeError, match="never"):
        patient(partial(_never, "never"), seconds=0.05, pause=0.01)()


def _never(said):
    raise RuntimeError(said)


def test_how_a_driver_may_end():
    assert expected_codes([], ray=False) == {0}
    assert expected_codes(["store killed", "store held"], ray=False) == {0}
    assert 3 in expected_codes(["store killed", LONG], ray=False)
    assert expected_codes(["driver SIGKILL"], ray=False) == {0, -9}
    assert 3 in expected_codes(["node killed"], ray=True)


@pytest.mark.slow
@pytest.mark.timeout(1500)  # several processes start, also on busy machines
@pytest.mark.parametrize("kind", KINDS)
def test_a_store_is_away_for_a_while_and_has_lost_nothing(kind, tmp_path):
    with shelf(tmp_path) as place:
        store = open_objects(place.url("set"), what="a test")
        store.write("one", b"1")
        assert place.strike(kind, 0.5, is_long=False) == [kind] == place.troubles_now()
        assert place.strike(kind, 0.0, is_long=False) == []
        began = time.monotonic()
        assert store.read("one") == b"1"
        assert time.monotonic() - began > 0.5
        place.calm()
        assert place.troubles_now() == []
        place.remove("set")
        with pytest.raises(FileNotFoundError):
            store.read("one")


def test_many_young_processes_say_nothing():
    """What a process takes in its first minute it may keep for good, and no more."""
    seconds = [float(second) for second in range(int(LEAST_LIFE_SECONDS))]
    found = growth([Life(seconds, seconds, seconds) for _ in range(20)], 0)
    assert found.watched_seconds > LEAST_SECONDS
    assert found.mib_per_minute is None


def test_a_short_watch_says_nothing():
    seconds = [float(second) for second in range(int(LEAST_SECONDS))]
    assert growth([Life(seconds, seconds, seconds)], 0).mib_per_minute is None
