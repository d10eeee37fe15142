"""The arrows of the house: who may import what, read from the source and from running processes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"av", "cv2", "dlib", "librosa", "matplotlib", "numba", "ray", "torch", "webdataset"}


def imports(path, *, anywhere=True):
    """Top-level names a file imports, everywhere in it or only when it is loaded."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if anywhere else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", sources("manifests"), ids=lambda p: str(p.relative_to(ROOT)))
def test_manifests_know_nothing_of_pipeline_and_decode_nothing(path):
    assert not imports(path) & {"pipeline", "train", "torch", "ray", "av", "dlib", "webdataset"}


@pytest.mark.parametrize("path", sources("pipeline"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_pipeline_knows_nothing_of_torch_and_the_trainer(path):
    assert not imports(path) & {"train", "torch", "webdataset"}


@pytest.mark.parametrize("path", sources("train"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_trainer_shares_the_shard_format_with_the_pipeline_and_nothing_else(path):
    assert not imports(path) & {"manifests", "ray", "av", "dlib"}
    of_pipeline = {
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline")
    }
    names = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "pipeline"
        for alias in node.names
    }
    assert of_pipeline <= {"pipeline.format", "pipeline"}
    assert names <= {"format"}


@pytest.mark.parametrize("path", sources("stores"), ids=lambda p: str(p.relative_to(ROOT)))
def test_stores_know_files_and_addresses_and_nothing_of_what_is_in_them(path):
    allowed = {"stores", "pyarrow", "requests", "urllib3"}
    assert imports(path) - set(sys.stdlib_module_names) <= allowed


@pytest.mark.parametrize("path", sources("selection"), ids=lambda p: str(p.relative_to(ROOT)))
def test_what_chooses_clips_knows_neither_pipeline_nor_trainer(path):
    ours = {"selection", "numpy", "pyarrow"}
    assert imports(path) - set(sys.stdlib_module_names) <= ours


def test_only_the_executors_know_ray():
    assert [p.name for p in sources("pipeline") if "ray" in imports(p)] == ["executors.py"]


def test_the_shard_format_needs_numpy_and_a_jpeg_codec_only():
    allowed = {"numpy", "simplejpeg", "soundfile"}
    assert imports(ROOT / "pipeline" / "format.py") - set(sys.stdlib_module_names) == allowed
    assert "soundfile" not in imports(ROOT / "pipeline" / "format.py", anywhere=False)


def loaded(statement):
    """Heavy modules in a fresh process after a statement."""
    code = f"{statement}\nimport sys; print(*sorted({HEAVY!r} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import manifests",
        "import pipeline",
        "import pipeline.__main__",
        "import manifests.__main__",
    ],
)
def test_importing_and_help_load_nothing_heavy(statement):
    assert loaded(statement) == set()


def test_a_worker_child_loads_neither_torch_nor_librosa_nor_ray():
    assert not loaded("import pipeline.child, pipeline.faces") & {
        "torch", "librosa", "numba", "ray", "webdataset", "matplotlib",
    }  # fmt: skip


def test_a_ray_worker_decodes_in_its_child_only():
    assert not loaded("import pipeline.executors") & {"av", "dlib", "cv2", "torch", "librosa"}
