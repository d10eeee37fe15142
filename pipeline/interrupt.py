"""Ctrl-C and SIGTERM: raised where they come, and remembered until somebody acts on them.

What is raised while a library runs a callback of its own, or while an object is taken down, is
printed and dropped by Python, and a job would go on to its end. So the job asks here, too.
"""

import signal

from stores import retry

_received: list[int] = []


def listen() -> None:
    """Raise KeyboardInterrupt with the signal's number for both of them, from now on.

    A shell starts what stands before its `&` deaf to Ctrl-C, and so it stays.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _note)


def _note(number: int, _frame: object) -> None:
    _received.append(number)
    retry.give_up()  # or threads that wait for a store would keep the process for minutes
    raise KeyboardInterrupt(number)


def check() -> None:
    """Act on a signal that was lost.

    Raises:
        KeyboardInterrupt: with the signal's number.
    """
    if _received:
        raise KeyboardInterrupt(_received[-1])


def last() -> int:
    """The signal that told this process to stop; Ctrl-C where none is known."""
    return _received[-1] if _received else int(signal.SIGINT)
