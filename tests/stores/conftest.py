"""What holds for all tests of stores."""

import pytest

from stores import retry


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tries at a place that does not answer."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
