"""Single files through the sandbox, with bounds on time and memory: helpers of the media tests."""

import json
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline import PROFILES
from pipeline.config import Limits
from pipeline.item import Failed, Item, Made
from pipeline.sandbox import Sandbox
from tests.pipeline.clips import make_clip
from tests.pipeline.rows import row

CPU_SECONDS_AT_MOST = 10
"""Of the child, loading its libraries included; it takes under 5. A hang is seen by its second try:
seconds of the clock would say how busy the machine is."""
RESIDENT_MIB_AT_MOST = 400
CONFIG = replace(PROFILES["glcm"], faces="off")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-bf", "2", "-g", "25")
LAVFI = ("-f", "lavfi", "-i")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One good clip, `clip.mp4`, for files to be made of."""
    folder = tmp_path_factory.mktemp("bad")
    make_clip(folder / "clip.mp4", seconds=2.5, size="96x72", options=(*X264, "-shortest"))
    return folder


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(CONFIG, Limits()) as sandbox:
        yield sandbox


def ends(sandbox, folder, name, **window):
    """The outcome of a file, after checks of time, memory and tries."""
    before = cpu_seconds(sandbox)
    uri = name if isinstance(name, str) else name.name
    [(outcome, tries)] = sandbox.run(Item(str(folder), (row(uri, **window),)))
    assert tries == 1
    assert cpu_seconds(sandbox) - before < CPU_SECONDS_AT_MOST
    assert resident_mib(sandbox) < RESIDENT_MIB_AT_MOST
    return outcome


def cpu_seconds(sandbox):
    """Of its child, if there is one."""
    if sandbox._child is None:
        return 0
    times = psutil.Process(sandbox._child.pid).cpu_times()
    return times.user + times.system


def resident_mib(sandbox):
    """The most memory the child ever held."""
    text = Path(f"/proc/{sandbox._child.pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) >> 10


def reason(outcome):
    assert isinstance(outcome, Failed), "it became a sample"
    return str(outcome.error.reason)


def meta(outcome):
    assert isinstance(outcome, Made), outcome
    return json.loads(outcome.members["json"])
