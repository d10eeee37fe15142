"""The most memory that a program had."""

from pathlib import Path


def peak_mib(pid: int | str = "self") -> float:
    """VmHWM of a process, of its own program alone.

    `ru_maxrss` is no smaller than what the parent held when it started the process.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kib) / 1024
