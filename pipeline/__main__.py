"""`python -m pipeline COMMAND`: raw videos to verified shards, and looking at them.

    python -m pipeline shards --dataset kinetics        make shards (resumes by itself)
    python -m pipeline peek data/shards/kinetics400-glcm --html peek.html

Exit codes: 0 complete, 2 usage, manifest or configuration, 3 incomplete (shards, retry, finalize,
add-field, verify) or a store or disk that failed, 4 output locked by another job (shards, retry,
finalize, add-field, drop), 5 corrupt shards found.
Commands that only tell (status, plan, peek, errors, report) end with 0 when they could tell it.
"""

import errno
import os
import sys

import tyro

from manifests.errors import UsageError
from manifests.text import all_lines
from pipeline import interrupt
from pipeline.commands import COMMANDS
from pipeline.commands.sets import addressed
from stores.errors import StoreError

USAGE, INCOMPLETE, LOCKED, CORRUPT = 2, 3, 4, 5
GROUP_MAY_READ = 0o050
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


def main() -> None:
    """Run one command and leave with its exit code."""
    interrupt.listen()
    os.umask(os.umask(0) & ~GROUP_MAY_READ)  # shard sets are shared by a group
    try:
        sys.exit(_run_command(sys.argv[1:]))
    except UsageError as error:
        sys.exit(_fail(str(error), USAGE))
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else interrupt.last()
        sys.exit(_fail("stopped; run the same command again to go on", 128 + number))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `... | head` is enough
    except Exception as error:
        sys.exit(_fail_by_kind(error))


def _run_command(arguments: list[str]) -> int:
    """Parse a command by itself, so that advice on a wrong flag names it and no other."""
    if arguments and arguments[0] in COMMANDS:
        prog = f"python -m pipeline {arguments[0]}"
        return tyro.cli(COMMANDS[arguments[0]], prog=prog, args=arguments[1:])
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="python -m pipeline", description=__doc__, args=arguments
    )


def _fail_by_kind(error: Exception) -> int:
    """The exit codes of errors whose modules are loaded only by the commands that raise them."""
    from pipeline.errors import ShardError, disk_sentence
    from pipeline.format import FormatError
    from pipeline.lock import LockedError
    from pipeline.outputs import NotFinishedError

    if isinstance(error, StoreError):
        return _fail(str(error), INCOMPLETE)
    if isinstance(error, LockedError):
        return _fail(str(error), LOCKED)
    if isinstance(error, FormatError):
        return _fail(str(error), CORRUPT)
    if isinstance(error, ShardError):
        return _fail(str(error), INCOMPLETE)
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return _fail(disk_sentence(str(error.filename or "the output"), error), INCOMPLETE)
    if isinstance(error, NotFinishedError):
        return _fail(str(error), USAGE)
    raise error


def _fail(message: str, code: int) -> int:
    print(f"error: {all_lines(addressed(message))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
