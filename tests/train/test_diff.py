"""What two runs differ in, from their folders alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.train.ramps import ramp_set
from tests.train.runs import metrics, toy
from train import trackers
from train.diff import diff
from train.errors import UsageError
from train.pretrain import pretrain


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)


def section(lines: list[str], title: str) -> dict[str, list[str]]:
    """Rows of a section: first cell -> the other two (cells stand two spaces apart)."""
    start = lines.index(title) + 1
    rows = {}
    if lines[start] != "  the same":
        assert lines[start].split() == ["A", "B"]
    for line in lines[start + 1 :]:
        if not line:
            break
        name, *cells = [cell.strip() for cell in line.strip().split("  ") if cell.strip()]
        rows[name] = cells
    return rows


def changed_git(run: Path, commit: str, changes: str) -> None:
    origin = json.loads((run / "origin.json").read_text())
    origin["git"] = {"commit": commit, "diff": changes}
    (run / "origin.json").write_text(json.dumps(origin))


def test_settings_code_and_results_stand_side_by_side(
    ten: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    pretrain(toy(ten, run, lr=0.01, val_every=5, val_split="train", allow_overlap=True))
    other = tmp_path / "other"
    shutil.copytree(undisturbed, other)
    changed_git(other, "a" * 40, "")
    changed_git(run, "b" * 40, "diff --git a/x b/x\n+new line")
    lines = diff(str(other), str(run))
    assert section(lines, "SETTINGS") == {
        "lr": ["0.001", "0.01"], "val_every": ["null", "5"], "val_split": ["val", "train"],
        "allow_overlap": ["false", "true"],
    }  # fmt: skip
    code = section(lines, "CODE")
    assert code == {"commit": ["a" * 40, "b" * 40], "uncommitted": ["nothing", "1 files"]}
    assert "++new line" in lines
    assert section(lines, "DATA") == {}
    results = section(lines, "RESULTS (end: mean of the last 20 steps)")
    for folder, column in ((other, 0), (run, 1)):
        losses = [line["loss"] for line in metrics(folder) if "loss" in line]
        mean = sum(losses) / len(losses)
        assert float(results["loss, end"][column]) == pytest.approx(mean, rel=1e-4)
    held_out = [line["val_loss"] for line in metrics(run) if "val_loss" in line]
    assert float(results["val_loss, best"][1]) == pytest.approx(min(held_out), rel=1e-4)
    assert float(results["val_loss, last"][1]) == pytest.approx(held_out[-1], rel=1e-4)
    assert results["val_loss, best"][0] == "-"
    assert "val_video_norm, last" in results
    assert "val_video_norm, best" not in results  # neither direction is better
    for name, folder in (("A", other), ("B", run)):
        assert f"  {name}  {folder}: finished, 15 steps, 5.0 epochs" in lines


def test_the_batch_stands_on_top_with_what_cannot_be_compared(
    ten: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    pretrain(toy(ten, run, batch_size=5, accumulation=2, max_steps=1))
    lines = diff(str(undisturbed), str(run))
    assert lines[4] == "BATCH"
    rows = section(lines, "BATCH")
    assert rows["clips a step"] == ["3", "10"]
    assert rows["negatives of a clip"] == ["2", "4"]
    assert "ranks" not in section(lines, "CODE")
    assert any("2 negatives in A, 4 negatives in B" in line for line in lines)
    alike = "\n".join(diff(str(undisturbed), str(undisturbed)))
    assert "cannot be compared" not in alike


def test_other_clips_are_counted(ten: Path, undisturbed: Path, tmp_path: Path) -> None:
    grown = ramp_set(tmp_path / "sets" / "demo-glcm", shards=3, clips=5)
    pretrain(toy(grown, tmp_path / "run", max_steps=2))
    lines = diff(str(undisturbed), str(tmp_path / "run"))
    rows = section(lines, "DATA")
    assert rows["demo-glcm.clips"] == ["10", "15"]
    assert rows["clips of this run only"] == ["0", "5"]
    assert rows["demo-glcm.index_hash"][0] != rows["demo-glcm.index_hash"][1]
    assert "run: is not finished after step 2" in lines[2]


def test_the_same_run_differs_in_nothing(undisturbed: Path) -> None:
    lines = diff(str(undisturbed), str(undisturbed))
    for title in ("SETTINGS", "CODE", "DATA"):
        assert section(lines, title) == {}


def test_a_run_that_is_going_on_may_have_a_torn_line(
    undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (run / "finished.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 16, "lo')
    lines = diff(str(run), str(undisturbed))
    assert "is not finished after step 15: its results are those so far" in lines[1]
    assert "1 lines that are no JSON were left out" in caplog.text


def test_what_is_no_run_is_a_sentence(ten: Path, undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no run .*nothing; below .*: undisturbed"):
        diff(str(undisturbed), str(undisturbed.parent / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty is no run, or one that never began: config.json"):
        diff(str(tmp_path / "empty"), str(undisturbed))


def test_a_run_without_a_step_says_so(ten: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(replace(toy(ten, run), max_steps=1))
    (run / "metrics.jsonl").unlink()
    assert "no step was measured yet" in "\n".join(diff(str(run), str(undisturbed)))


def test_only_facts_with_a_direction_have_a_best_value(undisturbed: Path, tmp_path: Path) -> None:
    """The greatest gap is the first model's, before it knows anything: nothing to be proud of."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    facts = {
        "val_loss_l": (3.0, 2.0, 2.5),
        "val_a2v_r1": (0.1, 0.3, 0.2),
        **{f"val_loss_l_{end}": (1.0, 2.0, 3.0) for end in ("gap", "swapped", "shifted", "chance")},
        **{f"val_a2v_r1_{end}": (0.1, 0.2, 0.3) for end in ("shifted", "chance")},
        "val_att_entropy": (1.0, 2.0, 3.0),
        "val_closs": (1.0, 2.0, 3.0),
    }
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(3):
            numbers = {name: values[step] for name, values in facts.items()}
            file.write(json.dumps({"step": 20 + step, **numbers}) + "\n")
    rows = section(diff(str(run), str(undisturbed)), "RESULTS (end: mean of the last 20 steps)")
    best = {name: cells[0] for name, cells in rows.items() if name.endswith(", best")}
    assert best == {"val_loss_l, best": "2", "val_a2v_r1, best": "0.3"}
    assert rows["val_loss_l_gap, last"][0] == "3"
