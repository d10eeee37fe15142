"""The commands of `python -m pipeline`: their flags and help, and what they say.

    making     shards, plan, finalize, retry, add-field
    looking    status, verify, peek, errors, report, doctor
    judging    drop, duplicates, leaks, offsets
    sets       the folders and addresses that they name

A command imports what it runs when it is called, so that `--help` loads nothing heavy. Its
docstring is its help.
"""

from pipeline.commands.judging import drop, duplicates, leaks, offsets
from pipeline.commands.looking import doctor, errors, peek, report, status, verify
from pipeline.commands.making import add_field, finalize, plan, retry, shards

COMMANDS = {
    command.__name__.replace("_", "-"): command
    for command in (
        shards,
        plan,
        status,
        finalize,
        verify,
        peek,
        errors,
        retry,
        add_field,
        drop,
        report,
        duplicates,
        leaks,
        offsets,
        doctor,
    )
}
