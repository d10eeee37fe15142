"""LRW, LRS2, LRS3 and GRID from shards to result.json, by their own splits."""

from pathlib import Path
from typing import Any

import pytest

from tests.train.evaluation.sets import FACES, Clip, labelled_set
from train.errors import UsageError
from train.evaluation import driver
from train.evaluation.config import EvalConfig

GRID_WORDS = [
    {"w": word, "start_s": 0.2 * place, "end_s": 0.2 * place + 0.2}
    for place, word in enumerate(["bin", "blue", "at", "f", "two", "now"])
]
FACTS = {"transcript": "bin blue at f two now", "words": GRID_WORDS}
SPLITS = {
    "lrw": ("train", "val", "test"),
    "lrs2": ("pretrain", "train", "val", "test"),
    "lrs3": ("pretrain", "trainval", "test"),
    "grid_commands": ("train", "val", "test"),
    "grid_sentences": ("train", "val", "test"),
}


def shards(folder: Path, task: str) -> Path:
    """Two clips of two speakers in each split."""
    dataset = task.split("_")[0]
    seconds = 1.16 if task == "lrw" else 1.2
    clips = [
        Clip(f"{dataset}/{split}/{n}", n, (f"{dataset}:{split}",), f"s{n}", seconds, facts=FACTS)
        for split in SPLITS[task]
        for n in range(2)
    ]
    return labelled_set(folder / f"{dataset}-lips", clips, FACES, name=dataset)


def evaluated(path: Path, run: Path, task: str, **changes: Any) -> dict[str, Any]:
    return driver.evaluate(
        EvalConfig(task=task, scratch=True, preset="nano", workers=0, shards=str(path),
                   run=str(run), device="cpu", epochs=1, batch_size=2, **changes)
    )  # fmt: skip


@pytest.mark.parametrize("task", list(SPLITS))
def test_it_runs_by_its_own_splits(tmp_path: Path, task: str) -> None:
    result = evaluated(shards(tmp_path, task), tmp_path / "run", task)
    assert result["metric"]["name"] == ("top1" if task in ("lrw", "grid_commands") else "wer")
    assert result["splits"] == [f"{task.split('_')[0]}:test"]
    assert result["n_scored"] == result["n_expected"] == 2
    assert result["faceless"] == 0
    assert result["settings"]["pictures"] == "lip"


@pytest.mark.parametrize(
    "flags",
    [{"pictures": "face"}, {"pictures": "frames"},
     {"pictures": "frames", "pooling": "full_attention"}],
)  # fmt: skip
@pytest.mark.parametrize("task", ["lrw", "lrs2"])
def test_the_rows_of_table_8(tmp_path: Path, task: str, flags: dict[str, Any]) -> None:
    result = evaluated(shards(tmp_path, task), tmp_path / "run", task, **flags)
    assert {name: result["settings"][name] for name in flags} == flags


def test_attention_over_crops_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --pictures frames"):
        evaluated(tmp_path, tmp_path / "run", "lrw", pooling="full_attention")
