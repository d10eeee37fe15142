"""Text of unknown origin on a terminal: the one place that makes names printable.

File names, labels and table cells may hold anything, escape sequences and line ends included. Data
keeps them as they are; whatever is shown goes through `one_line` or `say`.
"""

from __future__ import annotations


def one_line(text: str) -> str:
    """Return text as one printable line; any other character is written as its escape.

    >>> print(one_line("red\\x1b[31m\\nline"))
    red\\x1b[31m\\nline
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def all_lines(text: str) -> str:
    """Return text of several lines, each of them printable."""
    return "\n".join(map(one_line, text.split("\n")))


def say(*texts: str) -> None:
    """Print for the user, at once; each text is one line."""
    for text in texts:
        print(one_line(text), flush=True)
