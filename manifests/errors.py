"""The one exception of this package that a person is meant to read."""


class UsageError(Exception):
    """The user's input or configuration is wrong; a command line answers with exit code 2.

    The message says what is wrong, which value was given, what was expected, and what to do next.
    """
