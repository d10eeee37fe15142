"""Exact epochs, equal batches on all ranks, mixtures that count as written."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from stores.local import LocalStore
from tests.train.ramps import mixture_of, ramp, ramp_set_of
from train.errors import UsageError
from train.loader import ClipLoader
from train.mixture import Source, parse_shards
from train.plan import Plan, Position, seed_of, shuffled

# --- plan -------------------------------------------------------------------------------------


def test_the_shuffle_is_the_same_on_every_machine() -> None:
    assert seed_of(0, 1, "order") == 5940432003484249562
    assert shuffled(8, 7).tolist() == [1, 5, 7, 0, 4, 6, 3, 2]
    assert sorted(shuffled(1000, 3)) == list(range(1000))


@pytest.mark.parametrize(("world", "batch_size"), [(1, 4), (2, 2), (3, 2), (2, 3)])
def test_every_clip_comes_once_an_epoch_over_all_ranks(
    demo: Path, world: int, batch_size: int
) -> None:
    mixture = mixture_of(str(demo))
    plans = [Plan(mixture, 5, batch_size, world, rank) for rank in range(world)]
    drawn = [
        draw.row
        for plan in plans
        for batch in islice(plan.batches(Position(3)), plan.batches_per_epoch)
        for draw in batch
    ]
    assert {plan.batches_per_epoch for plan in plans} == {12 // (world * batch_size)}
    assert sorted(drawn) == list(range(12))


def test_what_fills_no_batch_is_left_out_of_the_epoch_on_all_ranks_alike(demo: Path) -> None:
    mixture = mixture_of(str(demo))
    plans = [Plan(mixture, 0, 5, 2, rank) for rank in range(2)]
    epochs = [list(islice(plan.batches(Position()), 3)) for plan in plans]
    assert [len(batch) for batches in epochs for batch in batches] == [5] * 6
    assert [[batch[0].epoch for batch in batches] for batches in epochs] == [[0, 1, 2]] * 2
    first = [draw.row for batches in epochs for draw in batches[0]]
    assert len(set(first)) == 10


def test_two_ranks_see_what_one_rank_with_twice_the_batch_sees(demo: Path) -> None:
    mixture = mixture_of(str(demo))
    one = list(islice(Plan(mixture, 1, 4).batches(Position()), 6))
    two = [list(islice(Plan(mixture, 1, 2, 2, rank).batches(Position()), 6)) for rank in (0, 1)]
    assert one == [left + right for left, right in zip(*two, strict=True)]


def test_epochs_and_seeds_differ_and_repeat(demo: Path) -> None:
    mixture = mixture_of(str(demo))
    order = [Plan(mixture, seed, 4).order(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    again = [Plan(mixture, seed, 4).order(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert order == again
    assert len({str(rows) for rows in order}) == 4


def test_too_few_clips_for_a_batch_is_said(demo: Path) -> None:
    with pytest.raises(UsageError, match=r"12 clips an epoch do not fill one batch of 7 on 2"):
        Plan(mixture_of(str(demo)), 0, 7, 2)


# --- mixtures -----------------------------------------------------------------------------------


def test_subsets_and_weights_count_as_written(demo: Path, other: Path) -> None:
    mixture = mixture_of(f"{demo}@n=5,{other}@w=0.5")
    assert [part.clips_per_epoch for part in mixture.parts] == [5, 3]
    counts = [Counter(row[0] for row in Plan(mixture, 0, 2).order(e).tolist()) for e in range(3)]
    assert counts == [{0: 5, 1: 3}] * 3


def test_a_subset_is_frozen_and_a_weight_draws_anew(demo: Path, other: Path) -> None:
    plan = Plan(mixture_of(f"{demo}@n=5,{other}@w=0.5"), 0, 2)
    epochs = [{tuple(row[:2]) for row in plan.order(e).tolist()} for e in range(12)]
    assert len({frozenset(x for x in rows if x[0] == 0) for rows in epochs}) == 1
    assert len({x for rows in epochs for x in rows if x[0] == 1}) == 6


def test_a_weight_over_one_brings_clips_back_with_other_windows(other: Path) -> None:
    plan = Plan(mixture_of(f"{other}@w=2.5", frames=4), 0, 3)
    order = plan.order(0).tolist()
    assert sorted(Counter(row for _, row, _ in order).values()) == [2, 2, 2, 3, 3, 3]
    assert {visit for _, _, visit in order} == {0, 1, 2}
    starts: dict[str, set[int]] = {}
    for batch in ClipLoader(plan).one_epoch():
        for key, start in zip(batch.keys, batch.start.tolist(), strict=True):
            starts.setdefault(key, set()).add(start)
    assert max(map(len, starts.values())) > 1


def test_subsets_are_nested_and_have_their_own_seed(demo: Path) -> None:
    rows = [set(mixture_of(f"{demo}@n={n}").parts[0].rows.tolist()) for n in (3, 6, 12)]
    assert rows[0] < rows[1] < rows[2]
    assert rows[1] != set(mixture_of(f"{demo}@n=6", subset_seed=1).parts[0].rows.tolist())


def test_a_subset_larger_than_the_set_is_the_set(
    demo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert mixture_of(f"{demo}@n=99").clips_per_epoch == 12
    assert "has 12 clips, 99 were asked for" in caplog.text


def test_instance_ids_of_the_second_set_follow_the_first(demo: Path, other: Path) -> None:
    mixture = mixture_of(f"{demo},{other}")
    assert mixture.first_instances() == {"demo-glcm": 0, "other-glcm": 12}
    assert mixture.instances == 18
    table = mixture.table()
    assert table["instance"].to_pylist() == list(range(18))
    assert table["key"].to_pylist()[12] == "other/clip000"


def test_a_set_is_named_once_and_sets_of_one_name_are_told_apart(
    demo: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"demo-glcm is named 2 times .*@w=2"):
        mixture_of(f"{demo},{demo}/@n=3")
    again = ramp_set_of(tmp_path / "elsewhere", [[ramp("demo/clip000", 7, 12)]])
    mixture = mixture_of(f"{demo},{again}")
    assert list(mixture.first_instances()) == ["demo-glcm", "demo-glcm#2"]


def test_clips_shorter_than_the_window_are_left_out_and_counted(demo: Path, tmp_path: Path) -> None:
    clips = [ramp(f"demo/c{i}", i, frames) for i, frames in enumerate((10, 20, 30))]
    mixture = mixture_of(str(ramp_set_of(tmp_path / "demo-glcm", [clips])), frames=16)
    assert mixture.parts[0].too_short == 1
    assert "2 an epoch; windows of 16 frames" in mixture.lines()[0]
    assert "; 1 clips are shorter and left out" in mixture.lines()[0]
    with pytest.raises(UsageError, match="the longest has 30"):
        mixture_of(str(demo), frames=31)


@pytest.mark.parametrize("entry", ["a@n=0", "a@n=1.5", "a@w=0", "a@x=1", "@n=4", "a@n=1@w=1"])
def test_entries_that_cannot_be_read_are_refused(entry: str) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        parse_shards(entry, Path("data"))


def test_default_sets_are_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"make shards DATASET=kinetics .*SHARDS="):
        parse_shards("", tmp_path)
    kinetics, avspeech = (tmp_path / "shards" / f"{n}-glcm" for n in ("kinetics400", "avspeech"))
    avspeech.mkdir(parents=True)
    (avspeech / "plan.json").touch()
    assert parse_shards("", tmp_path) == [Source(LocalStore(avspeech))]
    kinetics.mkdir()
    (kinetics / "plan.json").touch()
    assert parse_shards("", tmp_path) == [
        Source(LocalStore(kinetics), 120_000),
        Source(LocalStore(avspeech), 120_000),
    ]
