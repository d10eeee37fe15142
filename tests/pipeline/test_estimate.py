"""`pipeline plan` on a folder in which something was planned before."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from pipeline.estimate import there_lines
from tests.pipeline.factory import Factory, factory, rows

__all__ = ["factory"]

NAMES = [f"clip{number}" for number in range(6)]


def test_what_is_there_and_what_is_missing_is_said(factory: Factory, tmp_path: Path) -> None:
    out = tmp_path / "out"
    factory.add(*NAMES)
    wish = factory.wish(rows(*NAMES, "new"))
    assert there_lines(out, wish) == []
    factory.make(out, rows(*NAMES))
    (out / "shards/train-000001.json").unlink()
    said = f"{out} has 1 of its 2 planned shards already, 1 to be made; 1 row new to it"
    assert there_lines(out, wish) == [said]
    other = replace(wish, config=replace(wish.config, fps=Fraction(15)))
    assert "another configuration" in there_lines(out, other)[1]
