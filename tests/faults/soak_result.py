"""What a soak found, and the table of it."""

from dataclasses import dataclass, field
from typing import Any

from tests.faults.memory import Growth

MOST_GROWTH = {"driver": 2.0, "worker": 2.0, "child": 6.0}
"""MiB a minute that count as flat. A leak of one decoded 320 x 240 picture (225 KiB) a clip would
be over 30 in a child that makes three clips a second."""


@dataclass
class Result:
    """What a soak found."""

    options: dict[str, Any]
    rows: int = 0
    tars: int = 0
    rounds: int = 0
    attempts: int = 0
    """Drivers started."""
    kills: dict[str, int] = field(default_factory=dict)
    """Faults, by who was hit and by what."""
    joined: int = 0
    """Nodes that joined instead of lost ones."""
    codes: dict[int, int] = field(default_factory=dict)
    """How often drivers ended with which exit code."""
    problems: list[str] = field(default_factory=list)
    memory: dict[str, Growth] = field(default_factory=dict)
    long_pass: dict[str, Growth] = field(default_factory=dict)
    """Memory of one undisturbed run over many clips; empty if none was asked for."""
    minutes: float = 0.0


def verdict(role: str, found: Growth) -> str:
    """Whether memory of a role is flat, by two standard errors."""
    slope, bound = found.mib_per_minute, MOST_GROWTH.get(role)
    if slope is None:
        return "watched too briefly"
    if bound is None:
        return "-"
    if slope.value - 2 * slope.error > bound:
        return f"GROWS, more than {bound:g} MiB/min"
    return "flat" if slope.value + 2 * slope.error <= bound else "cannot be told"


def not_flat(memory: dict[str, Growth]) -> list[str]:
    """Roles whose memory grows, in sentences."""
    return [
        f"memory of each {role} grows by {found.mib_per_minute} MiB a minute, more than "
        f"{MOST_GROWTH[role]}"
        for role, found in memory.items()
        if verdict(role, found).startswith("GROWS")
    ]


def lines(result: Result) -> list[str]:
    """The table at the end."""
    kills = ", ".join(f"{name} {count}" for name, count in sorted(result.kills.items()))
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(result.codes.items()))
    said = [f"{name} {result.options[name]}" for name in ("seed", "executor", "nodes", "store")]
    table = [
        f"{result.minutes:.1f} min, {result.rounds} rounds of {result.rows} rows in {result.tars} "
        f"tars, {', '.join(said)}",
        f"faults: {kills or 'none'}; {result.joined} nodes joined",
        f"drivers: {result.attempts}, by exit code {codes}",
        "memory under fire, ± a standard error:",
        *memory_lines(result.memory),
    ]
    if result.long_pass:
        table += ["memory in one undisturbed run:", *memory_lines(result.long_pass)]
    wrong = [f"WRONG: {problem}" for problem in result.problems]
    return [*table, *(wrong or ["all as undisturbed, nothing lost, no litter"])]


def memory_lines(memory: dict[str, Growth]) -> list[str]:
    """A line for each role."""
    table = [
        f"{'process':<12}{'seen':>6}{'longest s':>11}{'watched s':>11}{'peak MiB':>10}"
        f"{'MiB/min':>16}{'most clips':>12}{'MiB/1000 clips':>18}{'peaks, MiB/min':>18}  verdict"
    ]
    for role, found in sorted(memory.items()):
        table.append(
            f"{role:<12}{found.processes:>6}{found.longest_seconds:>11.0f}"
            f"{found.watched_seconds:>11.0f}{found.peak_mib:>10.0f}"
            f"{found.mib_per_minute or '-'!s:>16}{found.most_clips:>12.0f}"
            f"{found.mib_per_1000_clips or '-'!s:>18}{found.peaks_mib_per_minute or '-'!s:>18}"
            f"  {verdict(role, found)}"
        )
    return table
