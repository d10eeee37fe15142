"""What this machine lets us use: cores by affinity and cgroup, not by the host's count."""

import os
from pathlib import Path

CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores this process may use, at least 1."""
    cores = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return max(1, cores if quota is None else min(cores, int(quota + 0.5)))


def _cgroup_quota() -> float | None:
    """Cores granted by the cgroup (version 2), None without a limit."""
    try:
        quota, period = CGROUP_CPU_MAX.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)
