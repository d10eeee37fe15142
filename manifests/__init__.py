"""WHAT there is: raw videos and official annotations become a manifest, one Parquet row per sample.

    python -m manifests datasets
    python -m manifests build --dataset kinetics --root /data/kinetics

The way of the data: `listing.walk` lists the files, an adapter joins them with its annotations and
gives rows to `columns.table`, `build` checks, counts and writes them (`schema.write`); the pipeline
reads them back (`schema.read`).

| file | holds |
|---|---|
| `build.py` | `build` and `ensure`: from a folder to a manifest file |
| `schema.py`, `columns.py`, `checks.py` | the file, its columns, what makes it valid |
| `dataset.py` | `Dataset`, `ScanOptions`, `Report`: what an adapter is made of |
| `listing.py`, `annotations.py`, `records.py` | reading folders, annotation files, tables |
| `clips.py`, `join.py` | names of web-video clips, and joining them with annotation rows |
| `named.py` | files of benchmarks whose names say which clip they are |
| `keys.py`, `windows.py` | names, windows of long recordings |
| `lrs.py` | utterances with their text, shared by LRS2 and LRS3 |
| `mds.py` | a split of DFDC by lists that the user gives |
| `recipes.py` | how clips are manipulated: drawing and checking (`augvgg`) |
| `errors.py`, `text.py` | `UsageError`, and text of unknown origin on a terminal |
| all others | one adapter a file |

To add a data set, write `manifests/NAME.py` with ``scan(root, options) -> (table, report)`` and a
`Dataset`, and add its line to `DATASETS` below. A private one needs no fork: put the same into a
package of your own that adds to `manifests.DATASETS`, and name it in GLAV_PLUGINS.
"""

from __future__ import annotations

import difflib
import importlib
import os

from manifests.audioset import AUDIOSET
from manifests.augvgg import AUGVGG
from manifests.ave import AVE
from manifests.avspeech import AVSPEECH
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.dcase2013 import DCASE2013
from manifests.demo import DEMO
from manifests.dfdc import DFDC
from manifests.dfdc_preview import DFDC_PREVIEW
from manifests.errors import UsageError
from manifests.esc10 import ESC10
from manifests.esc50 import ESC50
from manifests.folder import FOLDER
from manifests.grid import GRID
from manifests.hmdb51 import HMDB51
from manifests.kinetics import KINETICS400, KINETICS600, KINETICS700
from manifests.kinetics_sounds import KINETICS_SOUNDS
from manifests.lrs2 import LRS2
from manifests.lrs3 import LRS3
from manifests.lrw import LRW
from manifests.planted import PLANTED
from manifests.table import TABLE
from manifests.ucf101 import UCF101
from manifests.vggsound import VGGSOUND

__all__ = [
    "ALIASES",
    "DATASETS",
    "Dataset",
    "Report",
    "ScanOptions",
    "UsageError",
    "dataset",
    "load_plugins",
]

DATASETS: dict[str, Dataset] = {
    "kinetics400": KINETICS400,
    "kinetics600": KINETICS600,
    "kinetics700": KINETICS700,
    "avspeech": AVSPEECH,
    "audioset": AUDIOSET,
    "vggsound": VGGSOUND,
    "augvgg": AUGVGG,
    "kinetics_sounds": KINETICS_SOUNDS,
    "grid": GRID,
    "ucf101": UCF101,
    "hmdb51": HMDB51,
    "esc50": ESC50,
    "esc10": ESC10,
    "dcase2013": DCASE2013,
    "ave": AVE,
    "lrw": LRW,
    "lrs2": LRS2,
    "lrs3": LRS3,
    "dfdc": DFDC,
    "dfdc_preview": DFDC_PREVIEW,
    "folder": FOLDER,
    "table": TABLE,
    "demo": DEMO,
    "planted": PLANTED,
}
"""Canonical name -> data set."""

ALIASES: dict[str, str] = {
    "kinetics": "kinetics400",
    "k400": "kinetics400",
    "k600": "kinetics600",
    "k700": "kinetics700",
    "ks": "kinetics_sounds",
    "dfdcp": "dfdc_preview",
    "vgg_sound": "vggsound",
    "ucf_101": "ucf101",
    "hmdb_51": "hmdb51",
    "esc_50": "esc50",
    "esc_10": "esc10",
    "dcase": "dcase2013",
}
"""Other spellings -> canonical name; case and `-` for `_` need no entry."""


def dataset(name: str) -> Dataset:
    """Return a data set by name or alias, after importing the packages named in GLAV_PLUGINS.

    Raises:
        UsageError: nobody knows the name; the message lists those known.
    """
    load_plugins()
    wanted = name.strip().lower().replace("-", "_")
    wanted = ALIASES.get(wanted, wanted)
    if wanted in DATASETS:
        return DATASETS[wanted]
    close = difflib.get_close_matches(wanted, [*DATASETS, *ALIASES], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"unknown data set {name!r}; known: {', '.join(sorted(DATASETS))}.{hint}")


def load_plugins() -> None:
    """Import the packages named in GLAV_PLUGINS; they add themselves to the plain dicts."""
    for package in filter(None, map(str.strip, os.environ.get("GLAV_PLUGINS", "").split(","))):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UsageError(
                f"GLAV_PLUGINS names {package!r}, which cannot be imported ({error}); expected a "
                "package on PYTHONPATH. Install it or correct the variable."
            ) from error
