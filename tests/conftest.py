"""For all tests: processes that they start hear Ctrl-C, and signals mean the same in each test.

A shell starts what stands before its `&` deaf to it, and children inherit that. Commands that a
test calls in its own process set handlers, which would stay for the tests after it.
"""

import signal
from collections.abc import Iterator

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    """Put back what a test changed."""
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
    before = {number: signal.getsignal(number) for number in watched}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
