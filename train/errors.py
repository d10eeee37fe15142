"""Errors a person is meant to read, each with the exit code it leads to (architecture §2).

    TrainError (1) ⊃ UsageError (2), IncompleteError (3), LockedError (4), ShardError (5),
                     StoreError, TooLargeError, DiskError (1)

A message says what is wrong, which value was found, what was expected and what to do next.
"""


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


class StoreError(TrainError):
    """Where the shards lie cannot be reached, or refuses; says nothing about the shards."""

    def __str__(self) -> str:
        """As it was raised: webdataset appends to the arguments of what passes through it."""
        return self._message

    def __init__(self, message: str) -> None:
        """The message."""
        super().__init__(message)
        self._message = message
