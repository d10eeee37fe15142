"""`train eval` from flags to result.json: what is scored, what is missing, what is done again."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from stores import open_store
from tests.train.evaluation.sets import CONFIG, SOUND, Clip, labelled_set
from train.errors import LockedError, UsageError
from train.evaluation import driver
from train.evaluation.classify import accuracy, classify
from train.evaluation.config import EvalConfig
from train.evaluation.encoders import from_scratch
from train.evaluation.labelled import open_labelled, require_whole
from train.evaluation.result import Predictions
from train.evaluation.rounds import job_of
from train.evaluation.task import Round, Settings, Task, folds
from train.metrics import Score
from train.tasks import TASKS


def clips(count: int = 24, per_fold: int = 8) -> list[Clip]:
    """Two classes in folds; four clips of a group."""
    return [
        Clip(f"demo/clip{i:03d}", i % 2, (f"demo:fold{i // per_fold + 1}",), f"group{i // 4}")
        for i in range(count)
    ]


def toy_task(**changes: Any) -> Task:
    settings = {"modality": "A", "pictures": "none", "frames": 8, "clips": 2, "train_clips": 2,
                "epochs": 12, "batch_size": 4, **changes}  # fmt: skip
    return Task(
        name="toy", about="toy", dataset="demo", profile="sound", obtain="make it",
        rounds=folds("demo", 3), settings=Settings(**settings), predict=classify, measure=accuracy,
    )  # fmt: skip


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setitem(TASKS, "toy", toy_task())
    return TASKS["toy"]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_set(tmp_path_factory.mktemp("sets") / "demo-sound", clips(), SOUND)


def config(shards: Path, run: Path, **changes: Any) -> EvalConfig:
    settings: dict[str, Any] = {"task": "toy", "scratch": True, "preset": "nano", "workers": 0,
                                "shards": str(shards), "run": str(run), "device": "cpu",
                                "lr_head": 3e-3, **changes}  # fmt: skip
    return EvalConfig(**settings)


@pytest.mark.parametrize("protocol", ["finetune", "linear", "svm", "knn"])
def test_what_can_be_heard_is_learnt(
    task: Task, sounds: Path, tmp_path: Path, protocol: Any
) -> None:
    result = driver.evaluate(config(sounds, tmp_path / "run", protocol=protocol))
    assert result["metric"]["name"] == "top1"
    assert result["metric"]["value"] >= 0.9
    assert result["n_scored"] == result["n_expected"] == 24
    assert [one["n"] for one in result["rounds"]] == [8, 8, 8]
    name = "toy" if protocol == "finetune" else f"toy-{protocol}"
    folder = tmp_path / "run" / "eval" / name
    assert json.loads((folder / "result.json").read_bytes()) == result
    assert (folder / "confusion.png").read_bytes()[:4] == b"\x89PNG"
    assert "top1" in driver.told(result)


def test_pictures_teach_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = toy_task(modality="V", pictures="frames", clips=1, epochs=12)
    monkeypatch.setitem(TASKS, "toy", seen)
    shards = labelled_set(tmp_path / "demo-glcm", clips(), CONFIG)
    result = driver.evaluate(config(shards, tmp_path / "run", rounds="fold1"))
    assert result["metric"]["value"] >= 0.9
    assert any("only fold1 of the 3" in note for note in result["notes"])


def test_each_fold_is_scored_by_the_others(
    task: Task, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Any] = []

    def note(*arguments: Any) -> Any:
        jobs.append(job_of(*arguments))
        return fake(jobs[-1])

    monkeypatch.setattr(driver, "carry_out", note)
    driver.evaluate(config(sounds, tmp_path / "run"))
    for number, job in enumerate(jobs):
        names = {part: {e.name for e in getattr(job, part)} for part in ("train", "val", "test")}
        assert names["test"] == {f"demo/clip{i:03d}" for i in range(8 * number, 8 * number + 8)}
        assert not names["test"] & (names["train"] | names["val"])
        assert not names["train"] & names["val"]
        assert len(names["train"] | names["val"]) == 16
        assert not {e.group for e in job.train} & {e.group for e in job.val}


def fake(job: Any) -> Any:
    scores = np.eye(2, dtype=np.float32)[[example.target for example in job.test]]
    predictions = Predictions.of_scores(job, scores)
    return predictions, accuracy(predictions)


def test_a_second_call_does_nothing_again(
    task: Task, sounds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    first = driver.evaluate(config(sounds, tmp_path / "run", rounds="fold1", epochs=1))
    monkeypatch.setattr("train.evaluation.classify.finetuned", None)  # calling it would fail
    with caplog.at_level(logging.INFO):
        again = driver.evaluate(config(sounds, tmp_path / "run", rounds="fold1", epochs=1))
    assert "fold1: done before" in caplog.text
    assert again["metrics"] == first["metrics"]
    with pytest.raises(TypeError):  # another setting is another evaluation
        driver.evaluate(config(sounds, tmp_path / "run", rounds="fold1", epochs=2))


def test_a_killed_training_goes_on_after_its_last_epoch(
    task: Task, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = driver.evaluate(config(sounds, tmp_path / "whole", rounds="fold2", epochs=4))
    from train.evaluation import finetune

    calls: list[int] = []
    epoch = finetune._epoch

    def killed(*arguments: Any) -> float:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return epoch(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune, "_epoch", killed)
        driver.evaluate(config(sounds, tmp_path / "run", rounds="fold2", epochs=4))
    resumed = driver.evaluate(config(sounds, tmp_path / "run", rounds="fold2", epochs=4))
    assert resumed["rounds"] == whole["rounds"]
    ours, theirs = (
        Predictions.read(tmp_path / run / "eval/toy/fold2/predictions.parquet")
        for run in ("run", "whole")
    )
    assert ours.scores is not None
    assert theirs.scores is not None
    assert np.array_equal(ours.scores, theirs.scores)


# --- what is missing ----------------------------------------------------------------------------


def test_an_incomplete_test_split_is_refused(task: Task, tmp_path: Path) -> None:
    some = [*clips(), Clip("demo/lost", 0, ("demo:fold1",), missing=True)]
    shards = labelled_set(tmp_path / "demo-sound", some, SOUND)
    with pytest.raises(UsageError, match=r"(?s)1 of the 9 clips of demo:fold1.*demo/lost: no_aud"):
        driver.evaluate(config(shards, tmp_path / "run"))
    result = driver.evaluate(
        config(shards, tmp_path / "run", allow_missing=True, rounds="fold1", protocol="knn")
    )
    assert (result["n_scored"], result["n_expected"]) == (8, 9)
    assert result["coverage"] == 8 / 9
    assert result["missing"] == {"demo/lost": "no_audio"}
    assert any("--allow-missing: 1 " in note for note in result["notes"])


def test_a_view_is_scored_and_told(task: Task, tmp_path: Path) -> None:
    some = [*clips(), Clip("demo/lost", 0, ("demo:fold1",), missing=True)]
    shards = labelled_set(tmp_path / "demo-sound", some, SOUND)
    view = 'key not in ["demo/clip000", "demo/clip001", "demo/clip008"]'
    with pytest.raises(UsageError, match="1 of the 9 clips of demo:fold1"):  # as without a view
        driver.evaluate(config(shards, tmp_path / "run", where=view, protocol="knn"))
    result = driver.evaluate(
        config(shards, tmp_path / "run", where=view, protocol="knn", rounds="fold1",
               allow_missing=True)
    )  # fmt: skip
    assert (result["n_scored"], result["n_expected"], result["rounds"][0]["n"]) == (6, 9, 6)
    note = f'--where "{view}" leaves out 2 of the 8 test clips that are there'
    assert any(note in one for one in result["notes"])
    with pytest.raises(UsageError, match=r"fold2: no clip of .* that --where .* lets pass"):
        driver.evaluate(config(shards, tmp_path / "run", rounds="fold2", protocol="knn",
                               where='"demo:fold2" in splits'))  # fmt: skip


def test_fewer_clips_than_were_published(task: Task, tmp_path: Path) -> None:
    """A tree without official lists plans only what is there."""
    shards = labelled_set(tmp_path / "demo-sound", clips(), SOUND)
    manifest = pq.read_table(shards / "manifest.parquet")
    facts = {"glav": json.dumps({"report": {"official": {"demo:fold1": 400}}})}
    pq.write_table(manifest.replace_schema_metadata(facts), shards / "manifest.parquet")
    with pytest.raises(UsageError, match=r"demo:fold1 has 400 clips as published, .* knows of 8"):
        driver.evaluate(config(shards, tmp_path / "run", rounds="fold1"))
    result = driver.evaluate(
        config(shards, tmp_path / "run", rounds="fold1", protocol="knn", allow_missing=True)
    )
    assert (result["n_scored"], result["n_expected"]) == (8, 400)
    assert any("392 test clips" in note for note in result["notes"])


def test_missing_training_clips_are_no_reason(task: Task, tmp_path: Path) -> None:
    some = [*clips(), Clip("demo/lost", 0, ("demo:fold2",), missing=True)]
    shards = labelled_set(tmp_path / "demo-sound", some, SOUND)
    result = driver.evaluate(config(shards, tmp_path / "run", rounds="fold1", protocol="knn"))
    assert result["coverage"] == 1
    assert "fold1: 1 of 17 training clips are not there" in result["notes"]


def test_published_counts_of_splits_named_without_their_set(tmp_path: Path) -> None:
    shards = labelled_set(tmp_path / "demo-sound", clips(), SOUND)
    labelled = open_labelled(open_store(str(shards)))
    whole = replace(labelled, official={"demo:fold1": 9, "demo:xfold1": 99})
    for split in ("demo:fold1", "fold1"):
        with pytest.raises(UsageError, match="has 9 clips as published"):
            require_whole(whole, (split,), allow_missing=False)
    assert require_whole(whole, ("fold2",), allow_missing=False) == 8


def test_silent_clips_are_counted_where_sound_is_heard(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = labelled_set(tmp_path / "demo-glcm", clips(), CONFIG)
    samples = pq.read_table(shards / "samples.parquet")
    silent = [key in ("demo/clip001", "demo/clip020") for key in samples["key"].to_pylist()]
    if "silent" in samples.column_names:
        samples = samples.drop_columns(["silent"])
    pq.write_table(samples.append_column("silent", [silent]), shards / "samples.parquet")
    result = driver.evaluate(config(shards, tmp_path / "run", rounds="fold1", protocol="knn"))
    assert result["silent"] == 1
    assert any(note.startswith("1 test clips have no sound") for note in result["notes"])
    seen = toy_task(modality="V", pictures="frames", clips=1, train_clips=1)
    monkeypatch.setitem(TASKS, "toy", seen)
    result = driver.evaluate(config(shards, tmp_path / "other", rounds="fold1", protocol="knn"))
    assert result["silent"] == 0


def test_limit_is_said(task: Task, sounds: Path, tmp_path: Path) -> None:
    result = driver.evaluate(config(sounds, tmp_path / "run", limit=4, protocol="knn"))
    assert (result["n_scored"], result["n_expected"]) == (12, 24)
    assert any("--limit 4" in note for note in result["notes"])


def test_few_labels_stand_in_the_name_and_are_said(
    task: Task, sounds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        few = config(sounds, tmp_path / "run", labels=3, protocol="knn", rounds="fold1")
        result = driver.evaluate(few)
    assert "fold1: 6 to train on" in caplog.text, "three of each of two classes"
    assert (result["n_scored"], result["n_expected"]) == (8, 8)
    assert any(note.startswith("--labels 3: learned from") for note in result["notes"])
    assert (tmp_path / "run/eval/toy-knn-labels3/result.json").is_file()
    with pytest.raises(UsageError, match="--labels is 0; expected 1 or more"):
        config(sounds, tmp_path / "run", labels=0)


def test_with_few_labels_what_is_chosen_is_chosen_by_few(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = Round("fold1", ("demo:fold1",), ("demo:fold2",), val=("demo:fold3",))
    monkeypatch.setitem(TASKS, "toy", replace(toy_task(), rounds=(one,)))
    with caplog.at_level(logging.INFO):
        driver.evaluate(config(sounds, tmp_path / "run", labels=2, protocol="knn"))
        driver.evaluate(config(sounds, tmp_path / "run", protocol="knn"))
    told = [line for line in caplog.messages if "to choose by" in line]
    assert told == ["fold1: 4 to train on, 4 to choose by, 8 to score",
                    "fold1: 8 to train on, 8 to choose by, 8 to score"]  # fmt: skip


def test_labels_are_refused_where_none_are_learned_from(
    task: Task, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrained = replace(task, rounds=(Round("test", train=(), test=("demo:fold1",)),))
    monkeypatch.setitem(TASKS, "toy", untrained)
    with pytest.raises(UsageError, match="--labels 1: the task toy learns from none"):
        driver.evaluate(config(sounds, tmp_path / "run", labels=1))


def test_groups_on_both_sides_are_said(task: Task, tmp_path: Path) -> None:
    some = [Clip(clip.key, clip.label, clip.splits, "one speaker") for clip in clips()]
    shards = labelled_set(tmp_path / "demo-sound", some, SOUND)
    result = driver.evaluate(config(shards, tmp_path / "run", rounds="fold1", protocol="knn"))
    assert any("fold1: 1 of 1 groups" in note for note in result["notes"])


def test_test_clips_that_the_checkpoint_was_pretrained_on_are_said(
    task: Task, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of fold1's eight are in its training split, the others are held out, or not there."""
    splits = {0: (), 1: ("demo:train",), 2: (), 3: (), 4: ("demo:val",), 5: ("demo:val",)}
    seen = [Clip(f"demo/clip{i:03d}", 0, splits[i]) for i in splits]
    pretrained = labelled_set(tmp_path / "pretraining", seen, CONFIG)
    scratch = from_scratch("glcm", "nano", 0)

    def note(shards: str) -> str:
        origin = {"path": "x", "sha256": shards, "step": 1, "shards": shards}
        monkeypatch.setattr(driver, "_encoders", lambda _: replace(scratch, origin=origin))
        result = driver.evaluate(config(sounds, tmp_path / "run", rounds="fold1", protocol="knn"))
        return " ".join(result["notes"])

    gone = tmp_path / "gone"
    assert "4 of 8 test clips are in the shards" in note(f"{gone},{pretrained}@w=0.5")
    assert "are in the shards" not in note(str(gone))


# --- bad input ----------------------------------------------------------------------------------


def test_an_unknown_task_lists_the_tasks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)unknown task 'esc5'. Did you mean esc50\?.*esc10 "):
        driver.evaluate(config(tmp_path, tmp_path, task="esc5"))


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.dataset])
def test_without_data_the_way_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"(?s)1\. .*2\. make .*3\. make eval TASK={name}"):
        driver.evaluate(EvalConfig(task=name, scratch=True, data=tmp_path))


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if not task.dataset])
def test_tasks_for_any_set_ask_for_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"task {name} reads any labelled .*SHARDS=path.*folder"):
        driver.evaluate(EvalConfig(task=name, scratch=True, data=tmp_path))


def test_labels_out_of_range(task: Task, tmp_path: Path) -> None:
    some = [*clips(), Clip("demo/strange", 7, ("demo:fold2",))]
    shards = labelled_set(tmp_path / "demo-sound", some, SOUND)
    with pytest.raises(UsageError, match="demo/strange has the class 7; expected 0 to 1"):
        driver.evaluate(config(shards, tmp_path / "run"))


def test_a_set_without_pictures_for_a_task_of_pictures(
    monkeypatch: pytest.MonkeyPatch, sounds: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(TASKS, "toy", toy_task(modality="V", pictures="frames"))
    with pytest.raises(UsageError, match=r"reads frames.mjpeg, which demo-sound does not store"):
        driver.evaluate(config(sounds, tmp_path / "run"))


def test_a_split_that_nobody_is_in(
    monkeypatch: pytest.MonkeyPatch, sounds: Path, tmp_path: Path
) -> None:
    rounds = (Round("test", ("demo:test",), ("demo:train",)),)
    strange = toy_task()
    monkeypatch.setitem(TASKS, "toy", Task(**{**vars(strange), "rounds": rounds}))
    with pytest.raises(UsageError, match="no clip in demo:test; its splits: demo:fold1, demo:fold"):
        driver.evaluate(config(sounds, tmp_path / "run"))


def test_features_that_are_not_there(task: Task, sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs pictures"):
        driver.evaluate(config(sounds, tmp_path / "run", modality="V+A"))
    with pytest.raises(UsageError, match="has no round fold9; it has fold1, fold2, fold3"):
        driver.evaluate(config(sounds, tmp_path / "run", rounds="fold9"))
    with pytest.raises(UsageError, match="has no protocol 'frozen'; it has finetune, linear"):
        driver.evaluate(config(sounds, tmp_path / "run", protocol="frozen"))


def test_two_processes_do_not_write_one_result(
    task: Task, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise BlockingIOError

    monkeypatch.setattr("fcntl.lockf", refuse)
    with pytest.raises(LockedError, match="another process writes"):
        driver.evaluate(config(sounds, tmp_path / "run"))


def test_no_run_to_evaluate(
    task: Task, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no run below runs/ has finished. Train one"):
        driver.evaluate(EvalConfig(task="toy", shards=str(sounds)))


def test_the_newest_finished_run_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    import os

    for number, name in enumerate(("old", "new", "unfinished")):
        folder = Path("runs") / name
        folder.mkdir(parents=True)
        (folder / "lock").touch()
        if name != "unfinished":
            (folder / "finished.json").write_text("{}")
            os.utime(folder / "finished.json", (1000 + number, 1000 + number))
    assert driver.newest_finished_run() == Path("runs/new")
    monkeypatch.setattr(driver, "_is_locked", lambda path: True)
    with pytest.raises(UsageError, match=r"several runs are being trained \(runs/new, runs/old"):
        driver.newest_finished_run()


# --- the other machinery ------------------------------------------------------------------------


def generic(tmp_path: Path, splits: Any) -> Path:
    """Two classes; every clip its own source."""
    some = [Clip(f"demo/clip{i:03d}", i % 2, splits(i), f"source{i}") for i in range(40)]
    return labelled_set(tmp_path / "demo-glcm", some, CONFIG)


def test_classify_uses_the_splits_of_a_set(tmp_path: Path) -> None:
    shards = generic(tmp_path, lambda i: ("demo:train",) if i < 24 else ("demo:test",))
    result = driver.evaluate(config(shards, tmp_path / "run", task="classify", clips=1))
    assert result["splits"] == ["test"]
    assert result["n_scored"] == 16
    assert result["metric"]["value"] >= 0.9


def test_classify_cuts_parts_where_there_are_none(tmp_path: Path) -> None:
    shards = generic(tmp_path, lambda i: ())
    result = driver.evaluate(config(shards, tmp_path / "run", task="classify", clips=1))
    assert [one["name"] for one in result["rounds"]] == [f"part{i}of5" for i in range(1, 6)]
    assert result["n_scored"] == 40
    assert result["metric"]["value"] >= 0.9


def test_parts_are_cut_of_the_samples(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A broken file of one's own is an error row already, and no reason to score nothing."""
    some = [Clip(f"demo/clip{i:03d}", i % 2, (), f"source{i}", missing=i in (3, 8, 20))
            for i in range(40)]  # fmt: skip
    shards = labelled_set(tmp_path / "demo-glcm", some, CONFIG)
    result = driver.evaluate(config(shards, tmp_path / "run", task="classify", clips=1))
    assert result["n_scored"] == 37
    assert {one["n"] for one in result["rounds"]} == {7, 8}
    assert "3 of the 40 clips of demo-glcm are no samples, and in no part" in caplog.text


def test_few_sources_make_few_parts(tmp_path: Path) -> None:
    three = [Clip(f"demo/clip{i}", i % 2, (), f"source{i // 4}") for i in range(12)]
    shards = labelled_set(tmp_path / "three-glcm", three, CONFIG)
    result = driver.evaluate(config(shards, tmp_path / "run", task="classify", clips=1))
    assert [one["n"] for one in result["rounds"]] == [4, 4, 4]
    one = labelled_set(tmp_path / "one-glcm", three[:4], CONFIG)
    with pytest.raises(UsageError, match=r"of one source or none \(source0\)"):
        driver.evaluate(config(one, tmp_path / "run", task="classify", clips=1))


def test_retrieve_finds_clips_of_the_class(tmp_path: Path) -> None:
    shards = generic(tmp_path, lambda i: ("demo:train",) if i < 24 else ("demo:test",))
    result = driver.evaluate(config(shards, tmp_path / "run", task="retrieve", clips=1))
    assert [metric["name"] for metric in result["metrics"]] == ["R@1", "R@5", "R@10", "R@20"]
    assert result["metric"]["value"] >= 0.9


def test_fused_probes_score_each_modality(tmp_path: Path) -> None:
    splits = lambda i: ("vggsound:train",) if i < 24 else ("vggsound:test",)  # noqa: E731
    shards = generic(tmp_path, splits)
    result = driver.evaluate(config(shards, tmp_path / "run", task="vggsound", frames=8, clips=1))
    names = [metric["name"] for metric in result["metrics"]]
    assert names[0] == "top1"
    assert {"top1_A", "top1_V", "mAP", "d_prime"} <= set(names)
    assert result["metric"]["value"] >= 0.9


def fingerprints(tmp_path: Path) -> tuple[Path, Path]:
    """Four clean clips that differ, and a query of each in each set, the same sound as its own."""
    some = [Clip(f"vggsound/c{i}", i, ("vggsound:test",)) for i in range(4)]
    names = ("a", "b", "c", "d")
    clean = labelled_set(tmp_path / "vggsound-glcm", some, CONFIG, classes=names, name="vggsound")
    queries = [
        Clip(f"augvgg-{kind}/c{i}", i, (f"augvgg:{kind}",),
             facts={"extra": {"reference_key": f"vggsound/c{i}"}})
        for kind in ("IP", "S", "T", "C") for i in range(4)
    ]  # fmt: skip
    return clean, labelled_set(tmp_path / "augvgg-glcm", queries, CONFIG, classes=names)


def test_fingerprints_find_their_originals(tmp_path: Path) -> None:
    clean, queries = fingerprints(tmp_path)
    options: dict[str, Any] = {"task": "fingerprint", "frames": 8, "clips": 1, "train_clips": 1}
    result = driver.evaluate(config(queries, tmp_path / "run", gallery=str(clean), **options))
    assert [one["name"] for one in result["rounds"]] == ["IP", "S", "T", "C"]
    assert result["metric"]["name"] == "instance_R@1"
    assert result["metric"]["value"] == 1
    with pytest.raises(UsageError, match=r"originals of 4 of 4 queries, .*--gallery"):
        driver.evaluate(config(queries, tmp_path / "other", gallery=str(queries), **options))


def test_another_gallery_is_another_evaluation(tmp_path: Path) -> None:
    clean, queries = fingerprints(tmp_path)
    options: dict[str, Any] = {"task": "fingerprint", "frames": 8, "clips": 1, "train_clips": 1,
                               "rounds": "IP", "data": clean.parent.parent}  # fmt: skip
    default = clean.parent.parent / "shards" / "vggsound-glcm"
    default.parent.mkdir()
    clean.rename(default)
    first = driver.evaluate(config(queries, tmp_path / "run", **options))
    assert any("the gallery is 4 clips" in note for note in first["notes"])
    some = [Clip(f"vggsound/c{i}", i % 4, ("vggsound:test",)) for i in range(6)]
    shutil.rmtree(default)
    labelled_set(default, some, CONFIG, classes=("a", "b", "c", "d"), name="vggsound")
    again = driver.evaluate(config(queries, tmp_path / "run", **options))
    assert any("the gallery is 6 clips" in note for note in again["notes"])


def test_seconds_of_a_window_stand_for_the_frames_of_the_task(
    task: Task, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows: list[int] = []

    def note(*arguments: Any) -> Any:
        job = job_of(*arguments)
        windows.append(job.window)
        return fake(job)

    monkeypatch.setattr(driver, "carry_out", note)
    given: dict[str, Any]
    for given in ({}, {"window_seconds": 0.6}, {"window_seconds": 0.6, "frames": 5}):
        driver.evaluate(config(sounds, tmp_path / "run", rounds="fold1", **given))
    assert windows == [8, 6, 5]  # 10 frames a second


def test_a_metric_that_some_rounds_cannot_have(
    task: Task, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As R@50, where a round's gallery has 49 clips."""

    def measure(predictions: Predictions) -> list[Score]:
        top1 = accuracy(predictions)[0]
        rare = [replace(top1, name="rare")] if "demo/clip000" in predictions.names else []
        return [*rare, top1]

    monkeypatch.setitem(TASKS, "toy", replace(task, measure=measure))
    result = driver.evaluate(config(sounds, tmp_path / "run", protocol="knn"))
    assert [metric["name"] for metric in result["metrics"]] == ["top1"]
    assert [len(one["metrics"]) for one in result["rounds"]] == [2, 1, 1]


def test_results_of_other_data_lie_beside_each_other(task: Task, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("mine", "yours"):
        shards = labelled_set(tmp_path / name, clips(), CONFIG)
        driver.evaluate(config(shards, run, task="classify", clips=1, rounds="part1of5"))
    assert {path.parent.name for path in run.glob("eval/*/result.json")} == {
        "classify-mine", "classify-yours",
    }  # fmt: skip


def test_results_of_another_rate_of_the_encoder_lie_beside_each_other(
    task: Task, sounds: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for rate in (None, 0.001):
        driver.evaluate(config(sounds, run, rounds="fold1", lr_encoder=rate, epochs=1))
    driver.evaluate(config(sounds, run, rounds="fold1", lr_encoder=0.001, protocol="knn"))
    assert {path.parent.name for path in run.glob("eval/*/result.json")} == {
        "toy", "toy-lr_encoder0.001", "toy-knn",
    }, "frozen encoders have no rate"  # fmt: skip


def test_a_result_that_is_replaced_is_told(
    task: Task, sounds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    driver.evaluate(config(sounds, run, rounds="fold1", protocol="knn"))
    driver.evaluate(config(sounds, run, rounds="fold1,fold2", protocol="knn"))
    assert "replaced" not in caplog.text
    driver.evaluate(config(sounds, run, rounds="fold1", protocol="knn", clips=1, seed=5))
    assert "is of another clips, seed and is going to be replaced; --name" in caplog.text


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_encoders_without_a_rate_stay_as_they_are(
    task: Task, sounds: Path, tmp_path: Path, rate: float
) -> None:
    driver.evaluate(config(sounds, tmp_path, rounds="fold1", epochs=1, lr_encoder=rate))
    folder = tmp_path / f"eval/toy-lr_encoder{rate:g}"
    saved = torch.load(folder / "fold1/model.pt", weights_only=True)["model"]
    before = from_scratch("glcm", "nano", 0).module.state_dict()
    same = [torch.equal(saved[f"module.{name}"], value) for name, value in before.items()]
    assert all(same) == (rate == 0)


def test_features_of_one_path_do_not_stand_for_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(TASKS, "toy", toy_task(modality="V", pictures="frames", clips=1,
                                               train_clips=1, protocol="linear"))  # fmt: skip
    shards = labelled_set(tmp_path / "demo-glcm", clips(), CONFIG)
    one, other = tmp_path / "one", tmp_path / "other"
    driver.evaluate(config(shards, one, features="g"))
    after = driver.evaluate(config(shards, one, features="both"))
    alone = driver.evaluate(config(shards, other, features="both"))
    assert after["metrics"] == alone["metrics"]
    assert len(list((one / "eval" / "features").iterdir())) == 1  # of one pass over the clips
