"""How many cores this process may use, and keeping to fewer.

`os.cpu_count()` does not know what a container or job grants: Docker, Kubernetes and Slurm limit a
job by affinity, by a quota of its control group, or both. A quota may stand in any of the groups
above one's own, and the smallest one holds.
"""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Whole cores by affinity and quota, at least 1.

    Args:
        cgroups: where control groups are mounted.
        membership: lists this process's groups, a line `number:controllers:path` each.
    """
    allowed = len(os.sched_getaffinity(0))
    quotas = [quota for folder in _folders(cgroups, membership) for quota in _quotas(folder)]
    return max(int(min([allowed, *quotas])), 1)


def limit_threads(count: int | None) -> None:
    """Keep all libraries to so many threads for the rest of the process; None leaves their choice.

    torch has a pool of its own; NumPy's and SciPy's linear algebra has others, each with as many
    threads as there are cores, which `torch.set_num_threads` does not know.
    """
    if not count:
        return
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    threadpool_limits(count)  # of what is loaded; the environment is for what comes later
    os.environ.update(OMP_NUM_THREADS=str(count), OPENBLAS_NUM_THREADS=str(count))


def _folders(cgroups: Path, membership: Path) -> Iterator[Path]:
    """The groups that may limit us, each with all above it.

    A container often sees its own group as the root while the listed path is the host's: those
    folders do not exist here, and the way up ends at the right one anyway.
    """
    for line in _text(membership).splitlines() or ["0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = cgroups / controllers  # version 2 has one tree and names no controller
        group = top / path.lstrip("/")
        yield group
        yield from (above for above in group.parents if above.is_relative_to(top))


def _quotas(folder: Path) -> Iterator[float]:
    """Cores a group grants: version 2 in one file, version 1 in two; none without a limit."""
    one = _text(folder / "cpu.max").split()
    two = [_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    for quota, period in (pair for pair in (one, two) if len(pair) == 2):
        if quota.isdecimal() and period.isdecimal() and int(period):  # `max` and `-1`: no limit
            yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
