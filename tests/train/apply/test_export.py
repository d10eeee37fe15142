"""Exported checkpoints: the same features, and a card that says what is known and no more."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train
from train.apply.export import ExportOptions, export
from train.checkpoint import DamagedCheckpointError
from train.errors import UsageError
from train.evaluation.encoders import load_checkpoint


def features(path: Path) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(1, 3, 8, 28, 28, generator=generator)
    mel = torch.randn(1, 80, 24, generator=generator)
    with torch.no_grad():
        return train.load_checkpoint(path).features(video, mel)


def test_what_is_exported_gives_the_same_features(run: Path, tmp_path: Path) -> None:
    export(ExportOptions(run, tmp_path / "out"))
    before, after = features(run), features(tmp_path / "out")
    assert before.keys() == after.keys() == {"fg", "fl", "fa", "att"}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_weights_are_plain_safetensors(run: Path, tmp_path: Path) -> None:
    export(ExportOptions(run, tmp_path / "out"))
    weights = load_file(tmp_path / "out" / "model.safetensors")
    saved = torch.load(run / "checkpoints" / "step-00000007.pt", weights_only=True)["model"]
    assert weights.keys() == saved.keys()
    assert all(torch.equal(weights[name], saved[name]) for name in saved)


def test_who_may_read_the_card_may_read_the_weights(run: Path, tmp_path: Path) -> None:
    export(ExportOptions(run, tmp_path / "out"))
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(set(modes.values())) == 1, modes


def test_the_card_says_what_the_run_recorded(run: Path, tmp_path: Path) -> None:
    sets = {"demo-glcm": {"path": "/some/where", "clips": 12, "shards": 3, "clips_per_epoch": 3}}
    (run / "origin.json").write_text(json.dumps({"sets": sets}))
    lines = [{"step": 6, "val_loss": 5.0}, {"step": 7, "val_loss": 4.5, "loss": 1.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sha256 = load_checkpoint(run).origin["sha256"]  # type: ignore[index]
    for name, of in (("ours", sha256), ("other", "0" * 64)):
        metric = {"name": "top1", "value": 0.25, "low": 0.125, "high": 0.5}
        result = {"task": name, "dataset": "demo", "protocol": "svm", "metric": metric,
                  "n_scored": 8, "n_expected": 9, "notes": []}  # fmt: skip
        result["checkpoint"] = {"sha256": of}
        (run / "eval" / name).mkdir(parents=True)
        (run / "eval" / name / "result.json").write_text(json.dumps(result))
    export(ExportOptions(run, tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "demo-glcm: 12 clips in 3 shards, 3 an epoch" in card
    assert "held-out clips, loss: 4.5000" in card
    assert "ours (svm), top1: 0.2500 [0.1250, 0.5000], 8 of 9 clips" in card
    assert "other" not in card
    config = (tmp_path / "out" / "config.json").read_text()
    assert "/some/where" not in card + config


def test_nothing_is_claimed_where_nothing_was_recorded(run: Path, tmp_path: Path) -> None:
    export(ExportOptions(run, tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "demo-glcm (counts are not recorded)" in card
    assert "Nothing was measured" in card


def test_a_folder_of_others_is_not_written_to(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="holds other files"):
        export(ExportOptions(run, tmp_path / "mine"))
    export(ExportOptions(run, tmp_path / "out"))
    export(ExportOptions(run, tmp_path / "out"))  # an export is replaced
    with pytest.raises(UsageError, match="exported checkpoint already"):
        export(ExportOptions(tmp_path / "out", tmp_path / "again"))


def test_damage_is_said(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(ExportOptions(run, out))
    weights = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(DamagedCheckpointError, match=r"model\.safetensors cannot be read"):
        load_checkpoint(out)
    (out / "model.safetensors").write_bytes(weights)
    facts = json.loads((out / "config.json").read_text())
    facts["model"]["width"] = 16
    (out / "config.json").write_text(json.dumps(facts))
    with pytest.raises(DamagedCheckpointError, match="not those that its config describes"):
        load_checkpoint(out)
    (out / "config.json").unlink()
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        load_checkpoint(out)


def test_importing_train_stays_light_and_knows_no_other_names() -> None:
    code = (
        "import sys, train; print(*{'torch', 'webdataset', 'safetensors'} & set(sys.modules)); "
        "from train import load_checkpoint; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[3])  # fmt: skip
    assert done.stdout == "\nTrue\n"
    with pytest.raises(AttributeError, match="no attribute 'load_checkpint'"):
        _ = train.load_checkpint
