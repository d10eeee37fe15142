"""Numbers with units, as a person says them."""


def counted(count: int, noun: str) -> str:
    """A number of things: `1 clip`, `1,204 clips`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def time_text(seconds: float) -> str:
    """A length of time as a person says it: `48 s`, `12 min`, `3.1 h`, `2.4 days`."""
    for limit, unit_seconds, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            count = seconds / unit_seconds
            return f"{count:.1f} {unit}" if count < 10 else f"{count:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def bytes_text(count: float) -> str:
    """A number of bytes: `512 B`, `1.2 MB`, `3.4 TB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
