"""Errors a person is meant to read, each with the exit code it leads to (architecture §2).

    TrainError (1) ⊃ UsageError (2), IncompleteError (3), LockedError (4), ShardError (5),
                     TooLargeError, DiskError (1)

For files elsewhere, `stores` raises AddressError and RefusedStoreError (2), StoreError (1). A
message says what is wrong, which value was found, what was expected and what to do next.
"""

from stores.errors import AddressError, RefusedStoreError, StoreError


class TrainError(Exception):
    """Training cannot go on; the message is for a person."""

    exit_code = 1


class UsageError(TrainError):
    """The input or the configuration is wrong."""

    exit_code = 2


class IncompleteError(TrainError):
    """Something that should be there is not there yet."""

    exit_code = 3


class LockedError(TrainError):
    """Another process works on the same run."""

    exit_code = 4


class ShardError(TrainError):
    """A shard is not what its index says, or holds what is not part of the format."""

    exit_code = 5

    def __init__(self, message: str, shard: str = "") -> None:
        """The message, and the address of the shard if it is about one."""
        super().__init__(message)
        self.shard = shard


class TooLargeError(TrainError):
    """The batch does not fit into the memory of the device."""


class DiskError(TrainError):
    """What belongs to a run cannot be written."""


FOR_PEOPLE = (TrainError, StoreError, AddressError)
"""All of them: what a command ends with instead of a traceback."""


def exit_code(error: Exception) -> int:
    """What a command ends with because of one of them."""
    if isinstance(error, TrainError):
        return error.exit_code
    mistaken = isinstance(error, AddressError | RefusedStoreError)
    return UsageError.exit_code if mistaken else TrainError.exit_code
