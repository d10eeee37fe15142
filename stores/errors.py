"""What can be wrong with a place of files. The messages are for a person; none holds a secret.

The packages that read and write there give these their exit codes: an address is the caller's
mistake, an outage says nothing about the files.
"""


class AddressError(Exception):
    """An address that cannot be used: of no known kind, with a password, without ranges."""


class StoreError(Exception):
    """Where the files lie cannot be reached, or refuses; says nothing about the files."""

    def __str__(self) -> str:
        """As it was raised: webdataset appends to the arguments of what passes through it."""
        return self._message

    def __init__(self, message: str) -> None:
        """The message."""
        super().__init__(message)
        self._message = message


class RefusedStoreError(StoreError):
    """The other side said no, and would say so again: wrong credentials, no such bucket."""
