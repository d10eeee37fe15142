"""Downstream evaluations: `TASKS`, a plain dict from a task's name to what it is.

To add a task, write `train/tasks/NAME.py` that builds a `train.evaluation.task.Task`, and add its
line here. A private one needs no fork: a package named in GLAV_PLUGINS adds its own entry.
"""

import difflib

from train.errors import UsageError
from train.evaluation.task import Task
from train.tasks.av_retrieval import AV_RETRIEVAL
from train.tasks.ave import AVE, AVE_WEAK
from train.tasks.avsync import AVSYNC
from train.tasks.classify import CLASSIFY, RETRIEVE
from train.tasks.dcase2013 import DCASE2013
from train.tasks.dfdc import DFDC, DFDC_FOLDS, DFDC_MDS
from train.tasks.esc50 import ESC10, ESC50
from train.tasks.fingerprint import FINGERPRINT
from train.tasks.grid import GRID_TASKS
from train.tasks.kinetics import KINETICS400, KINETICS600
from train.tasks.localization import LOCALIZATION
from train.tasks.lrs import LRS2, LRS3
from train.tasks.lrw import LRW
from train.tasks.planted import PLANTED_TASKS
from train.tasks.retrieval import RETRIEVAL
from train.tasks.ucf101 import HMDB51, UCF101
from train.tasks.vggsound import VGGSOUND

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        UCF101,
        HMDB51,
        KINETICS400,
        KINETICS600,
        VGGSOUND,
        ESC50,
        ESC10,
        DCASE2013,
        DFDC,
        DFDC_MDS,
        DFDC_FOLDS,
        AVE,
        AVE_WEAK,
        AVSYNC,
        AV_RETRIEVAL,
        LOCALIZATION,
        LRW,
        LRS2,
        LRS3,
        *GRID_TASKS,
        *PLANTED_TASKS,
        RETRIEVAL,
        FINGERPRINT,
        CLASSIFY,
        RETRIEVE,
    )
}
"""Adding a task is one line here."""


def task_named(name: str) -> Task:
    """A task by its name.

    Raises:
        UsageError: there is none; says which there are.
    """
    if name in TASKS:
        return TASKS[name]
    close = difflib.get_close_matches(name, TASKS, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    listed = "\n".join(f"  {task.name:<17} {task.about}" for task in TASKS.values())
    raise UsageError(f"unknown task {name!r}.{hint} The tasks:\n{listed}")
