"""Cores by affinity and quota, on control groups written to a folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.cores import usable_cores


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def cores(tmp_path: Path, groups: dict[str, str], membership: str | None) -> int:
    """Cores with these files, by path and text, and this /proc/self/cgroup."""
    tree, listed = tmp_path / "cgroup", tmp_path / "membership"
    for name, text in groups.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text + "\n")
    if membership is not None:
        listed.write_text(membership + "\n")
    return usable_cores(tree, listed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("400000 100000", 4),
        ("250000 100000", 2),  # a part of a core is none
        ("50000 100000", 1),
        ("3200000 100000", 16),  # more than the affinity allows
        ("max 100000", 16),
        ("", 16),
        ("nonsense", 16),
        ("100000 0", 16),
    ],
)
def test_the_quota_of_version_2(tmp_path: Path, text: str, expected: int) -> None:
    assert cores(tmp_path, {"cpu.max": text}, "0::/") == expected
    assert cores(tmp_path, {"cpu.max": text}, None) == expected


def test_the_smallest_quota_on_the_way_up_holds(tmp_path: Path) -> None:
    groups = {
        "slurm/job_7/cpu.max": "600000 100000",
        "slurm/job_7/step_0/cpu.max": "max 100000",
        "slurm/cpu.max": "1200000 100000",
        "slurm/job_8/cpu.max": "100000 100000",  # somebody else's
    }
    assert cores(tmp_path, groups, "0::/slurm/job_7/step_0") == 6


def test_a_container_sees_its_group_as_the_root(tmp_path: Path) -> None:
    assert cores(tmp_path, {"cpu.max": "300000 100000"}, "0::/docker/abc/def") == 3


def test_the_quota_of_version_1(tmp_path: Path) -> None:
    groups = {
        "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "500000",
        "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "memory/docker/abc/cpu.cfs_quota_us": "100000",  # not the controller that counts
        "memory/docker/abc/cpu.cfs_period_us": "100000",
    }
    membership = "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/"
    assert cores(tmp_path, groups, membership) == 5


def test_affinity_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores(tmp_path, {}, None) == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert cores(tmp_path, {"cpu.max": "400000 100000"}, "0::/") == 1


def test_this_machine() -> None:
    assert 1 <= usable_cores() <= 16


def test_all_pools_keep_to_the_threads_that_are_asked_for() -> None:
    """In a process of its own: a limit holds until its end."""
    program = """
import numpy, os, torch, threadpoolctl
from train.cores import limit_threads
limit_threads(None)
assert "OPENBLAS_NUM_THREADS" not in os.environ
limit_threads(1)
import scipy.linalg  # has a library of its own
pools = threadpoolctl.threadpool_info()
print(torch.get_num_threads(), len(pools) > 0, {pool["num_threads"] for pool in pools})
"""
    unset = {key: value for key, value in os.environ.items() if "NUM_THREADS" not in key}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env=unset, check=False)  # fmt: skip
    assert done.stdout == "1 True {1}\n", done.stderr
