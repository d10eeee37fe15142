"""ESC-50: 2,000 five-second recordings of 50 kinds of sound, in five folds.

Where from: the author's repository ESC-50. The name says everything:
`{FOLD}-{FREESOUND CLIP}-{TAKE}-{TARGET}.wav`; fragments of one recording stay in one fold. Older
releases: class folders (`101 - Dog/1-100032-A.ogg`, where 101..510 count the classes), and ESC-10
as first published (`001 - Dog bark/1-30226-A.ogg`). meta/esc50.csv (`filename,fold,target,category,
esc10,src_file,take`), or esc50.csv with the older header, is read where it is there: it names what
is missing.

Splits are the folds, `esc50:fold1` to `esc50:fold5`; rows of the ten classes of ESC-10 are in
`esc10:fold1` to `esc10:fold5` as well. Protocol: train on four folds, test on the fifth, and give
the mean of the five.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from manifests.annotations import columns_of, csv_rows, find_named, plain
from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.errors import UsageError
from manifests.listing import AUDIO_KINDS, Entry, to_uri
from manifests.named import below, files_by_name, usual_folder

LICENCE = "CC BY-NC 3.0 (the ten classes of ESC-10: CC BY 3.0); name K. J. Piczak, 2015"
CATEGORIES = [
    *("dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow"),
    *("rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds", "water_drops"),
    *("wind", "pouring_water", "toilet_flush", "thunderstorm"),
    *("crying_baby", "sneezing", "clapping", "breathing", "coughing", "footsteps", "laughing"),
    *("brushing_teeth", "snoring", "drinking_sipping"),
    *("door_wood_knock", "mouse_click", "keyboard_typing", "door_wood_creaks", "can_opening"),
    *("washing_machine", "vacuum_cleaner", "clock_alarm", "clock_tick", "glass_breaking"),
    *("helicopter", "chainsaw", "siren", "car_horn", "engine", "train", "church_bells"),
    *("airplane", "fireworks", "hand_saw"),
]
"""The vocabulary, in the order of the official targets."""
ESC10 = [
    *("dog", "rain", "sea_waves", "crying_baby", "clock_tick", "sneezing", "helicopter"),
    *("chainsaw", "rooster", "crackling_fire"),
]
"""The classes of ESC-10, in the order of its folders 001 to 010."""
_OLD_NAMES = {"door_knock": "door_wood_knock", "insects_flying": "insects"}
FOLDS = range(1, 6)
CLIP_SECONDS = 5.0
_NAME = re.compile(r"([1-5])-(\d+)-([A-Z])(?:-(\d+))?")
_FOLDER = re.compile(r"(\d)(\d\d) - .+")
_COLUMNS = {
    "file": ("filename", "file"),
    "fold": ("fold",),
    "category": ("category_name", "category"),
}


class Clip(NamedTuple):
    """What a file's name says."""

    fold: int
    source: str
    """Number of the recording on Freesound."""
    take: str
    target: int
    """Position in `CATEGORIES`."""

    @property
    def stem(self) -> str:
        """The file's name in the current release, without extension."""
        return f"{self.fold}-{self.source}-{self.take}-{self.target}"


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Read folds and classes off the names below `root`, and what is missing off the CSV."""
    report = Report("esc50", LICENCE, vocabulary=CATEGORIES)
    report.protocols = [[f"{name}:fold{n}" for n in FOLDS] for name in ("esc50", "esc10")]
    listing = options.walk(root)
    files = files_by_name(listing, AUDIO_KINDS, _clip_of, report)
    listed = list(_listed(root, options, report))
    return table(_rows(files, listed, report)), report


def _rows(files: dict[Clip, Entry], listed: list[Clip], report: Report) -> Iterator[Row]:
    folder = usual_folder(files.values(), 1, "audio")
    for clip in dict.fromkeys(listed):
        yield _row(clip, files.get(clip), below(folder, f"{clip.stem}.wav"))
    report.duplicate_rows += len(listed) - len(set(listed))
    rest = [clip for clip in files if clip not in set(listed)]
    if listed:
        report.files_without_row = report.kept_without_row = len(rest)
    for clip in rest:
        yield _row(clip, files[clip], "")


def _row(clip: Clip, entry: Entry | None, expected: str) -> Row:
    category = CATEGORIES[clip.target]
    splits = [f"esc50:fold{clip.fold}"]
    if category in ESC10:
        splits.append(f"esc10:fold{clip.fold}")
    return {
        "dataset": "esc50",
        "key": f"esc50/{clip.stem}",
        "source_id": f"esc50:{clip.stem}",
        "group_id": f"freesound:{clip.source}",
        "uri": expected if entry is None else to_uri(entry.path),
        "end_s": CLIP_SECONDS,
        "splits": splits,
        "labels": [clip.target],
        "label_names": [category],
        "expect": {"video": False, "audio": True, "duration_s": CLIP_SECONDS},
        "extra": extra(take=clip.take),
        "anchored": True,
        "bytes": None if entry is None else entry.bytes,
    }


def _clip_of(entry: Entry) -> Clip | None:
    *folders, name = entry.path.split("/")
    return _clip(name, folders[-1] if folders else "")


def _clip(name: str, folder: str) -> Clip | None:
    """Return what a name says; the class is in it, or it is its folder's. None: neither."""
    found = _NAME.fullmatch(name.rpartition(".")[0])
    if found is None:
        return None
    target = int(found[4]) if found[4] else _target_of_folder(folder)
    if target is None or target >= len(CATEGORIES):
        return None
    return Clip(int(found[1]), found[2], found[3], target)


def _target_of_folder(folder: str) -> int | None:
    """Return the class of `001 - Dog bark` (ESC-10) or `101 - Dog` (ESC-50), by its number."""
    found = _FOLDER.fullmatch(folder)
    if found is None:
        return None
    group, place = int(found[1]), int(found[2])
    if not 1 <= place <= 10 or group > 5:
        return None
    return CATEGORIES.index(ESC10[place - 1]) if group == 0 else (group - 1) * 10 + place - 1


def _listed(root: Path, options: ScanOptions, report: Report) -> Iterator[Clip]:
    """Yield the rows of the CSV; its columns are found by their names.

    Raises:
        UsageError: a column is not there, or a row is no clip of ESC-50.
    """
    for path in find_named(root, options, r"esc50\.csv"):
        rows = csv_rows(path)
        header = next(rows, [])
        places = columns_of(header, _COLUMNS)
        if len(places) < len(_COLUMNS):
            raise UsageError(
                f"{path} has the columns {', '.join(header) or 'none'}; expected filename, fold "
                "and category among them. Download meta/esc50.csv again."
            )
        report.annotations.append(str(path))
        for number, fields in enumerate(rows, start=2):
            clip = _listed_clip(fields, places)
            if clip is None:
                raise UsageError(
                    f"{path} row {number} is {','.join(fields)!r}; expected a file such as "
                    "1-100032-A-0.wav, its fold 1 to 5 and a category of ESC-50 ('dog'). Download "
                    "meta/esc50.csv again."
                )
            yield clip


def _listed_clip(fields: list[str], places: dict[str, int]) -> Clip | None:
    """Return the clip of a CSV row: the category counts, its number differs between releases."""
    if len(fields) <= max(places.values()):
        return None
    name = plain(fields[places["category"]])
    category = _OLD_NAMES.get(name, name)
    found = _NAME.fullmatch(fields[places["file"]].rpartition(".")[0])
    if found is None or fields[places["fold"]] != found[1] or category not in CATEGORIES:
        return None
    return Clip(int(found[1]), found[2], found[3], CATEGORIES.index(category))


ESC50 = Dataset(
    name="esc50",
    title="ESC-50",
    what="Five-second recordings of 50 kinds of sound, 40 of each, in five folds.",
    scale="2,000 clips of 5 s, 2.8 hours, 600 MB",
    licence=LICENCE,
    layouts=(
        "ROOT/audio/1-100032-A-0.wav              fold, Freesound clip, take, class\n"
        "ROOT/101 - Dog/1-100032-A.ogg            the first release, class folders\n"
        "ROOT/001 - Dog bark/1-30226-A.ogg        ESC-10 alone, as first published"
    ),
    scan=scan,
    annotations=(
        "meta/esc50.csv below ROOT, or named by --annotations; without it the names decide, and "
        "missing files are not known by name"
    ),
    download="the archive ESC-50-master.zip of the repository ESC-50 by K. J. Piczak; unpack it",
    official={f"esc50:fold{n}": 400 for n in FOLDS} | {f"esc10:fold{n}": 80 for n in FOLDS},
)
"""The registry's entry."""
