"""What is said about a Ray cluster and to it, without one: addresses, code, nodes, lost shards."""

import ast
import contextlib
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from manifests.errors import UsageError
from pipeline import PROFILES, cluster, job
from pipeline.config import Limits
from pipeline.errors import LostError, ShardError
from pipeline.executors import Finished, LocalExecutor
from pipeline.make import make_shards
from pipeline.options import ShardsOptions
from pipeline.prepare import versions
from pipeline.shard import ShardTask
from tests.faults.jobs import X264
from tests.pipeline.clips import make_clip
from tests.pipeline.test_sandbox import PLUGINS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("address", [None, "", "local"])
def test_no_address_is_no_cluster(address):
    assert cluster.checked_address(address) is None


def test_addresses_that_answer_and_those_that_ray_finds_itself_are_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "auto"):
            assert cluster.checked_address(address) == address
    with pytest.raises(UsageError, match=rf"no Ray cluster answers at 127.0.0.1:{port}"):
        cluster.checked_address(f"127.0.0.1:{port}")


def test_a_dashboard_is_not_a_cluster_and_what_takes_one_is_named():
    with pytest.raises(UsageError, match=r"ray job submit --address http://head:8265"):
        cluster.checked_address("http://head:8265")


# --- code --------------------------------------------------------------------------------------


def test_our_packages_and_the_plugins_are_shipped(monkeypatch):
    monkeypatch.syspath_prepend(PLUGINS)
    monkeypatch.setenv("GLAV_PLUGINS", "glav_gate,tests.train.toy")
    shipped = cluster.runtime_env()
    ours = [str(ROOT / name) for name in ("pipeline", "manifests", "selection", "stores")]
    assert shipped["py_modules"][:4] == ours
    assert shipped["py_modules"][-2:] == [str(PLUGINS / "glav_gate.py"), str(ROOT / "tests")]
    assert shipped["env_vars"] == {"GLAV_PLUGINS": "glav_gate,tests.train.toy"}


def test_everything_that_the_pipeline_imports_of_ours_is_shipped():
    own = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    needed = {
        name.split(".")[0]
        for package in cluster.OWN_PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert needed & own == set(cluster.OWN_PACKAGES)


def test_without_plugins_no_variable_is_set_on_the_workers(monkeypatch):
    monkeypatch.delenv("GLAV_PLUGINS", raising=False)
    assert "env_vars" not in cluster.runtime_env()


def test_a_plugin_that_is_not_there_cannot_be_shipped(monkeypatch):
    monkeypatch.setenv("GLAV_PLUGINS", "no_such_package")
    with pytest.raises(UsageError, match="GLAV_PLUGINS names 'no_such_package'"):
        cluster.runtime_env()


def task(tmp_path, **changes):
    plain = ShardTask(
        name="all-000000", rows=(), root=str(tmp_path), folder=str(tmp_path),
        config=PROFILES["glcm"], config_hash="", fingerprint="", limits=Limits(),
        versions=versions(),
    )  # fmt: skip
    return replace(plain, **changes)


def test_a_worker_like_the_driver_may_work(tmp_path):
    cluster.check_worker(task(tmp_path))
    cluster.check_worker(task(tmp_path, root="s3://bucket/raw", folder="s3://bucket/out"))


@pytest.mark.parametrize("which", ["root", "folder"])
def test_a_worker_that_does_not_see_a_folder_says_so_instead_of_missing_files(tmp_path, which):
    with pytest.raises(ShardError, match=f"does not see the .* folder {tmp_path}/no"):
        cluster.check_worker(task(tmp_path, **{which: f"{tmp_path}/no"}))


def test_a_worker_with_another_library_is_refused(tmp_path):
    with pytest.raises(ShardError, match=r"has av .*, and this job was started with 1\.0"):
        cluster.check_worker(task(tmp_path, versions={"av": "1.0"}))


# --- nodes -------------------------------------------------------------------------------------


def node(letter, host, cpus, *, alive=True, reason=0):
    return {
        "NodeID": letter * 56, "Alive": alive, "DeathReason": reason, "NodeName": f"10.0.0.{host}",
        "NodeManagerAddress": f"10.0.0.{host}", "NodeManagerHostname": f"n{host}",
        "Resources": {"CPU": cpus} if cpus else {},
    }  # fmt: skip


def test_nodes_come_and_go():
    nodes = cluster.Nodes()
    assert nodes.update([node("a", 1, 0), node("b", 2, 8.0)]) == []
    assert (nodes.cpus, nodes.summary()) == (8, "2 nodes, 8 CPUs")
    assert nodes.update([node("a", 1, 0), node("b", 2, 8.0), node("c", 3, 4)]) == [
        "node n3 (10.0.0.3) joined: 12 CPUs now"
    ]
    gone = [node("a", 1, 0), node("b", 2, 8, alive=False), node("c", 3, 4, alive=False, reason=4)]
    assert nodes.update(gone) == [
        "node n2 (10.0.0.2) was lost: 4 CPUs now", "node n3 (10.0.0.3) left: 0 CPUs now",
    ]  # fmt: skip
    assert nodes.update(gone) == []
    assert nodes.named_in(f"on node ID: {'b' * 56}. This can happen") == "n2 (10.0.0.2)"
    assert nodes.named_in(f"Lease ID: {'d' * 56}, Worker ID: 77") is None


# --- shards that are lost for good -------------------------------------------------------------


class Losing(LocalExecutor):
    """An executor whose workers die while they make certain shards."""

    def __init__(self, lost):
        super().__init__(1)
        self.submitted = []
        self._lost = lost
        self._gone = []

    def submit(self, task):
        self.submitted.append(task.name)
        if len(self.submitted) > self._lost:
            super().submit(task)
        else:
            self._gone.append(Finished(task.name, LostError(f"shard {task.name} was lost")))

    def poll(self):
        gone, self._gone = self._gone, []
        return gone or super().poll()


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    clip = make_clip(folder / "a.mp4", seconds=2, size="64x48", options=X264)
    for name in "bcdef":
        (folder / f"{name}.mp4").write_bytes(clip.read_bytes())
    return folder


def make_with(monkeypatch, raw, out, pool):
    monkeypatch.setattr(job, "executor", lambda *_: contextlib.closing(pool))
    options = ShardsOptions(
        "folder", root=str(raw), out=str(out), faces="off", seconds_per_shard=0.001
    )
    pool.close = pool.stop
    return make_shards(options, lambda *_: None)


def test_a_shard_that_is_lost_for_good_does_not_stop_the_others(monkeypatch, raw, tmp_path):
    pool = Losing(1)
    outcome = make_with(monkeypatch, raw, tmp_path, pool)
    lost = pool.submitted[0]
    assert outcome.exit_code == 3
    assert outcome.lines[-1] == (
        f"Stopped: 1 shard could not be made (shard {lost} was lost); run the same command again"
    )
    made = {path.stem for path in (tmp_path / "shards").glob("*.tar")}
    assert (len(made), made | {lost}) == (5, set(pool.submitted))
    assert make_with(monkeypatch, raw, tmp_path, Losing(0)).exit_code == 0


def test_a_cluster_that_loses_shard_after_shard_is_left(monkeypatch, raw, tmp_path):
    pool = Losing(99)
    outcome = make_with(monkeypatch, raw, tmp_path, pool)
    assert (outcome.exit_code, len(pool.submitted)) == (3, 4)
    assert not list((tmp_path / "shards").glob("*.tar"))
