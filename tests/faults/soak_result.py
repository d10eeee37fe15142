"""What a soak found, the table of it, its file, and what docs/clusters.md says of that."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.memory import Growth, Slope
from tests.faults.outages import LONG

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
    """Of the undisturbed set and the rounds; the long pass comes after."""


def verdict(role: str, found: Growth) -> str:
    """Whether memory of a role is flat, by two standard errors.

    By its later halves where they are known. That it grows is said of these alone: over a whole
    life of a few minutes one step, when a pool or a cache is made, is a slope as well.
    """
    slope = found.late_mib_per_minute or found.mib_per_minute
    bound = MOST_GROWTH.get(role)
    if slope is None:
        return "watched too briefly"
    if bound is None:
        return "-"
    if found.late_mib_per_minute and slope.value - 2 * slope.error > bound:
        return f"GROWS, more than {bound:g} MiB/min"
    return "flat" if slope.value + 2 * slope.error <= bound else "cannot be told"


def not_flat(memory: dict[str, Growth]) -> list[str]:
    """Roles whose memory grows, in sentences."""
    return [
        f"memory of each {role} grows by {found.mib_per_minute} MiB a minute, in the end by "
        f"{found.late_mib_per_minute or 'an unknown amount'}, more than {MOST_GROWTH[role]}"
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
        f"{'MiB/min':>16}{'late, MiB/min':>16}{'most clips':>12}{'MiB/1000 clips':>18}"
        f"{'peaks, MiB/min':>18}  verdict"
    ]
    for role, found in sorted(memory.items()):
        table.append(
            f"{role:<12}{found.processes:>6}{found.longest_seconds:>11.0f}"
            f"{found.watched_seconds:>11.0f}{found.peak_mib:>10.0f}"
            f"{found.mib_per_minute or '-'!s:>16}{found.late_mib_per_minute or '-'!s:>16}"
            f"{found.most_clips:>12.0f}{found.mib_per_1000_clips or '-'!s:>18}"
            f"{found.peaks_mib_per_minute or '-'!s:>18}  {verdict(role, found)}"
        )
    return table


# --- the file, and the page ---------------------------------------------------------------------


def write(result: Result, path: Path) -> None:
    """As JSON, where what is infinite is null."""
    plain = dataclasses.asdict(result, dict_factory=_finite)
    path.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n")


def read(path: Path) -> Result:
    """What `write` wrote."""
    stored = json.loads(path.read_bytes())
    for name in ("memory", "long_pass"):
        stored[name] = {role: _growth(found) for role, found in stored[name].items()}
    stored["codes"] = {int(code): count for code, count in stored["codes"].items()}
    return Result(**stored)


def _finite(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: None if value == math.inf else value for name, value in pairs}


def _growth(stored: dict[str, Any]) -> Growth:
    slopes = {f.name for f in dataclasses.fields(Growth) if "Slope" in str(f.type)}
    found = {name: _slope(value) if name in slopes else value for name, value in stored.items()}
    return Growth(**found | {"course": [(second, mib) for second, mib in stored["course"]]})


def _slope(stored: dict[str, Any] | None) -> Slope | None:
    if stored is None:
        return None
    return Slope(stored["value"], math.inf if stored["error"] is None else stored["error"])


def page_lines(result: Result) -> list[str]:
    """What the page says of a soak of all at once, word by word: who was hit; memory if known."""
    real = ", real clips" if result.options["media"] else ""
    what = f"Ray, two nodes, S3 server{real}; {result.options['minutes']:g} min, {result.rows} rows"
    hit = ", ".join(f"{counted(result.kills, who)} {who}s" for who in ("node", "worker", "driver"))
    hit += f", {counted(result.kills, 'child')} children"
    long = result.kills.get(LONG, 0)
    away = f"{counted(result.kills, 'store')} outages, {long} of them of over a minute"
    found = "; ".join(result.problems) or "as undisturbed, nothing lost, no litter"
    roles = [role for role in MOST_GROWTH if role in result.long_pass]
    row = f"| {what} | {result.rounds} | {hit} | {away} | {found} |"
    return [row] * bool(result.rounds) + [_memory_row(role, result) for role in roles]


def _memory_row(role: str, result: Result) -> str:
    """Of the page's table: lives and peak in all, slopes of the undisturbed run."""
    fire, peace = result.memory[role], result.long_pass[role]
    slopes = [str(slope or "-") for slope in (peace.mib_per_minute, peace.late_mib_per_minute)]
    peak = max(fire.peak_mib, peace.peak_mib)
    return f"| {role} | {fire.processes + peace.processes} | {peak:.0f} | {' | '.join(slopes)} |"


def counted(kills: Mapping[str, int], who: str) -> int:
    """How often one of these was hit, by whatever."""
    return sum(count for name, count in kills.items() if name.startswith(who))
