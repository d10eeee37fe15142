"""The registry: adapter files are listed, names found, plugins heard; the imports are light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import manifests
from manifests import ALIASES, DATASETS, UsageError, dataset

HELPERS = {
    *("__init__", "__main__", "annotations", "build", "checks", "clips", "columns", "dataset"),
    *("errors", "join", "keys", "listing", "lrs", "mds", "named", "recipes", "records", "remote"),
    *("schema", "text", "windows"),
}


def test_every_adapter_file_is_in_the_registry() -> None:
    folder = Path(manifests.__file__).parent
    adapters = {path.stem for path in folder.glob("*.py")} - HELPERS
    listed = {
        "kinetics" if name.startswith("kinetics") and name[-1].isdigit() else name
        for name in DATASETS
    }
    assert adapters == listed


def test_entries_say_all_that_is_taught() -> None:
    for name, entry in DATASETS.items():
        assert entry.name == name
        for text in (entry.title, entry.what, entry.scale, entry.licence, entry.layouts):
            assert text.strip()
    assert set(ALIASES.values()) <= set(DATASETS)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [("kinetics", "kinetics400"), ("Kinetics-Sounds", "kinetics_sounds"), ("GRID", "grid")],
)
def test_names_and_aliases(name: str, canonical: str) -> None:
    assert dataset(name).name == canonical


def test_benchmarks_say_how_to_get_them_and_what_was_published() -> None:
    for name in ("ucf101", "hmdb51", "ave", "esc50", "esc10", "dcase2013"):
        entry = DATASETS[name]
        assert entry.download
        assert name in {split.partition(":")[0] for split in entry.official}


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="Did you mean") as caught:
        dataset("kinetcs")
    assert all(name in str(caught.value) for name in DATASETS)


def test_plugins_add_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_sets.py").write_text(
        "from dataclasses import replace\nfrom manifests import DATASETS\n"
        "DATASETS['mine'] = replace(DATASETS['folder'], name='mine')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GLAV_PLUGINS", "my_sets")
    try:
        assert dataset("mine").name == "mine"
    finally:
        DATASETS.pop("mine", None)
    monkeypatch.setenv("GLAV_PLUGINS", "no_such_package")
    with pytest.raises(UsageError, match="no_such_package"):
        dataset("folder")


def test_import_is_light() -> None:
    heavy = ["torch", "ray", "av", "cv2", "dlib", "librosa", "tyro", "imageio_ffmpeg", "skimage"]
    code = (
        f"import sys, manifests, manifests.build; print([m for m in {heavy!r} if m in sys.modules])"
    )
    folder = Path(manifests.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True
    )
    assert done.stdout.strip() == "[]"


def test_command_line(tree, tmp_path: Path) -> None:
    root = tree(["cats/a.mp4"])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "manifests", *arguments]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=Path(manifests.__file__).parents[1],
            check=False,
        )

    data = str(tmp_path / "data")
    done = run("build", "--dataset", "folder", "--root", str(root), "--data", data)
    assert done.returncode == 0, done.stderr
    manifest = tmp_path / "data/manifests/folder.parquet"
    assert manifest.is_file() and str(manifest) in done.stdout
    assert f"next: make shards DATASET=folder ROOT={root}\n" in done.stdout
    again = run(
        "build", "--dataset", "folder", "--root", str(root), "--data", data, "--window", "9"
    )
    assert f'DATASET=folder ROOT={root} ARGS="--window 9"\n' in again.stdout
    assert run("validate", str(manifest)).returncode == 0
    assert "kinetics400" in run("datasets").stdout
    about = run("datasets", "UCF-101").stdout
    for said in ("To download:", "UCF101.rar", "data/raw/ucf101", "make shards DATASET=ucf101"):
        assert said in about
    wrong = run("build", "--dataset", "kinetics", "--data", data)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr and "make shards DATASET=kinetics400" in wrong.stderr
    assert run("build", "--nonsense").returncode == 2
