"""DCASE2013 scenes: 200 binaural recordings of 30 s from ten kinds of places.

Where from: the scene classification task of the IEEE AASP challenge of 2013. The public set is
`scenes_stereo/{scene}{01..10}.wav`, the private one `scenes_stereo_testset/`, with the same names:
the key holds the set. Nothing else is needed, and what is missing is known by name.

Two protocols. `dcase2013:train` and `dcase2013:test` are the public and the private set, as
representation learning papers use them. The challenge itself cross-validated within the private
set; its folds are not in the archives, so ours are `dcase2013:fold1` to `dcase2013:fold5` by the
recording's number: 1 and 2 of every scene, 3 and 4, and so on.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from manifests.annotations import split_of
from manifests.columns import Row, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.listing import AUDIO_KINDS, Entry, to_uri
from manifests.named import files_by_name

LICENCE = "CC BY, as far as we know; name Stowell et al. 2015"
SCENES = [
    *("bus", "busystreet", "office", "openairmarket", "park", "quietstreet", "restaurant"),
    *("supermarket", "tube", "tubestation"),
]
"""The vocabulary, sorted."""
CLIP_SECONDS = 30.0
_FOLDERS = {"train": "scenes_stereo", "test": "scenes_stereo_testset"}
_NUMBERS = range(1, 11)
_PER_FOLD = 2
_FOLDS = range(1, 6)
_NAME = re.compile(rf"({'|'.join(SCENES)})(\d\d)\.\w+")


class _Clip(NamedTuple):
    subset: str
    scene: str
    number: int

    @property
    def stem(self) -> str:
        return f"{self.scene}{self.number:02d}"


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Read set and scene off the paths below `root`; the 200 names are known."""
    report = Report("dcase2013", LICENCE, vocabulary=SCENES)
    report.protocols = [
        ["dcase2013:train", "dcase2013:test"],
        [f"dcase2013:fold{n}" for n in _FOLDS],
    ]
    listing = options.walk(root)
    # an archive may have been unpacked into the folder that ROOT names
    own = root.resolve().name
    files = files_by_name(listing, AUDIO_KINDS, lambda entry: _clip(entry, own), report)
    known = [_Clip(s, c, n) for s in _FOLDERS for c in SCENES for n in _NUMBERS] if files else []
    report.notes.append(
        "The folds of the challenge's cross-validation are not published with the data; those here "
        "are ours, by the number in the name."
    )
    return table(_row(clip, files.get(clip)) for clip in known), report


def _row(clip: _Clip, entry: Entry | None) -> Row:
    key = f"dcase2013/{clip.subset}/{clip.stem}"
    splits = [f"dcase2013:{clip.subset}"]
    if clip.subset == "test":
        splits.append(f"dcase2013:fold{(clip.number - 1) // _PER_FOLD + 1}")
    expected = f"{_FOLDERS[clip.subset]}/{clip.stem}.wav"
    return {
        "dataset": "dcase2013",
        "key": key,
        "source_id": key.replace("/", ":", 1),
        "group_id": key.replace("/", ":", 1),
        "uri": expected if entry is None else to_uri(entry.path),
        "end_s": CLIP_SECONDS,
        "splits": splits,
        "labels": [SCENES.index(clip.scene)],
        "label_names": [clip.scene],
        "expect": {"video": False, "audio": True, "duration_s": CLIP_SECONDS},
        "anchored": True,
        "bytes": None if entry is None else entry.bytes,
    }


def _clip(entry: Entry, root_name: str) -> _Clip | None:
    """Return what a path says; None: its name is no scene, or its folders tell no set."""
    *folders, name = entry.path.split("/")
    found = _NAME.fullmatch(name)
    subset = _subset([*reversed(folders), root_name])
    if found is None or subset is None or int(found[2]) not in _NUMBERS:
        return None
    return _Clip(subset, found[1], int(found[2]))


def _subset(folders: list[str]) -> str | None:
    """Return the set that the first telling folder names."""
    for folder in map(str.lower, folders):
        if "testset" in folder:
            return "test"
        if subset := "train" if "scenes_stereo" in folder else split_of(folder):
            return subset
    return None


DCASE2013 = Dataset(
    name="dcase2013",
    title="DCASE2013 scenes",
    what="Binaural recordings of 30 s from ten kinds of places, such as a bus or a park.",
    scale="100 public and 100 private recordings, 1.7 hours",
    licence=LICENCE,
    layouts=(
        "ROOT/scenes_stereo/bus01.wav             the public set: train\n"
        "ROOT/scenes_stereo_testset/bus01.wav     the private set: test"
    ),
    scan=scan,
    options=(),
    download=(
        "scenes_stereo.zip and scenes_stereo_testset.zip of the IEEE AASP challenge on detection\n"
        "and classification of acoustic scenes and events (2013); unpack both"
    ),
    official={
        "dcase2013:train": 100,
        "dcase2013:test": 100,
        **{f"dcase2013:fold{n}": 20 for n in _FOLDS},
    },
)
"""The registry's entry."""
