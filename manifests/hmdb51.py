"""HMDB51: 6,766 clips of 51 human actions, from films and the web, with three official splits.

Where from: the Serre lab's page of HMDB51; archives inside an archive, unpack both. Layout:
`CLASS/NAME.avi`. Lists: `CLASS_test_split1.txt`, 1 to 3 (153 files), rows `NAME.avi FLAG ` with the
flag 1 for train, 2 for test, 0 for unused: 1,666 clips of each split are neither, and no val set.

Names end in `_CLASS_f_cm_np1_ba_goo_0`: what is seen of the body, camera, people, view, quality,
number. What comes before is the video that the clip was cut from: the group. No group of a class is
in train and test of one split. Names hold `! ( ) # [ ] & + ; ~ @`; their keys end in a hash.
There is no sound. Splits are `hmdb51:train1`, `hmdb51:test1` and so on; papers give the mean of the
three.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from manifests.annotations import find_named, open_text
from manifests.columns import Row, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.errors import UsageError
from manifests.keys import path_hash, slug
from manifests.listing import VIDEO_KINDS, Entry, printable, to_uri
from manifests.named import below, files_by_name, usual_folder

LICENCE = "CC BY 4.0, as far as we know; name Kuehne et al. 2011"
CLASSES = [
    *("brush_hair", "cartwheel", "catch", "chew", "clap", "climb", "climb_stairs", "dive"),
    *("draw_sword", "dribble", "drink", "eat", "fall_floor", "fencing", "flic_flac", "golf"),
    *("handstand", "hit", "hug", "jump", "kick", "kick_ball", "kiss", "laugh", "pick", "pour"),
    *("pullup", "punch", "push", "pushup", "ride_bike", "ride_horse", "run", "shake_hands"),
    *("shoot_ball", "shoot_bow", "shoot_gun", "sit", "situp", "smile", "smoke", "somersault"),
    *("stand", "swing_baseball", "sword", "sword_exercise", "talk", "throw", "turn", "walk"),
    "wave",
]
"""The vocabulary: sorted, as no list numbers the classes."""
_NUMBER = {name: number for number, name in enumerate(CLASSES)}
_ENDING = re.compile(r"_[fhlu]_(?:cm|nm)_np\d+_(?:ba|bo|fr|le|ri)_(?:bad|goo|med)_\d+")
_LIST = re.compile(r"(.+)_test_split([123])")
_FLAGS = {"0": "", "1": "train", "2": "test"}


class _Listed(NamedTuple):
    label: str
    splits: list[str]


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Join the official lists with the files below `root`; files alone have no split."""
    report = Report("hmdb51", LICENCE, vocabulary=CLASSES)
    report.protocols = [[f"hmdb51:train{n}", f"hmdb51:test{n}"] for n in (1, 2, 3)]
    listed = _listed(root, options, report)
    files = files_by_name(options.walk(root), VIDEO_KINDS, lambda e: _name(e, listed), report)
    if listed:
        report.files_without_row = len(files.keys() - listed.keys())
        _note_lists(report)
    elif files:
        report.notes.append(
            "The lists CLASS_test_split1.txt ... were not found: the rows have no split. Unpack "
            "test_train_splits.rar below ROOT."
        )
        listed = {name: _Listed(_label(entry) or "", []) for name, entry in files.items()}
    folder = usual_folder(files.values(), 2, "hmdb51_org")
    return table(_row(n, listed[n], files.get(n), folder) for n in listed), report


def _row(name: str, listed: _Listed, entry: Entry | None, folder: str) -> Row:
    label = listed.label
    short = slug(name)
    stem = short if short == name else f"{short}-{path_hash(name)}"
    return {
        "dataset": "hmdb51",
        "key": f"hmdb51/{label}/{stem}",
        "source_id": f"hmdb51:{label}/{stem}",
        "group_id": f"hmdb:{label}/{_source(name, label)}",
        "uri": below(folder, label, f"{name}.avi") if entry is None else to_uri(entry.path),
        "splits": listed.splits,
        "labels": [_NUMBER[label]],
        "label_names": [label],
        "expect": {"video": True, "audio": False},
        "anchored": True,
        "bytes": None if entry is None else entry.bytes,
    }


def _name(entry: Entry, listed: dict[str, _Listed]) -> str | None:
    """Return a clip's name; None: it is in no list, and nothing says its class."""
    name = printable(entry.path.rpartition("/")[2].rpartition(".")[0])
    return name if name in listed or _label(entry) is not None else None


def _label(entry: Entry) -> str | None:
    """Return the class of a file of HMDB51: its folder, else by its name."""
    *folders, name = entry.path.split("/")
    start, ending = _split_name(name.rpartition(".")[0])
    if not ending:
        return None
    if folders and folders[-1] in _NUMBER:
        return folders[-1]
    # a name that ends in '_draw_sword' ends in '_sword' as well: the longest class is meant
    return max((c for c in CLASSES if start.endswith(f"_{c}")), key=len, default=None)


def _source(name: str, label: str) -> str:
    """Return the video that a clip was cut from."""
    return _split_name(name)[0].removesuffix(f"_{label}")


def _split_name(name: str) -> tuple[str, str]:
    """Return (source and class, the coded ending) of a name; the ending is empty if it has none."""
    found = list(_ENDING.finditer(name))
    if not found or found[-1].end() != len(name):
        return name, ""
    return name[: found[-1].start()], found[-1][0]


def _listed(root: Path, options: ScanOptions, report: Report) -> dict[str, _Listed]:
    """Return class and splits of every clip in the lists; empty: there are no lists."""
    clips: dict[str, _Listed] = {}
    for path in find_named(root, options, _LIST.pattern + r"\.txt"):
        found = _LIST.fullmatch(path.stem)
        if found is None or found[1] not in _NUMBER:
            report.unknown_labels[path.stem] += 1
            continue
        report.annotations.append(str(path))
        seen: set[str] = set()
        for name, flag in _list(path):
            clip = clips.setdefault(name, _Listed(found[1], []))
            if name in seen:
                report.duplicate_rows += 1
            elif flag:
                clip.splits.append(f"hmdb51:{flag}{found[2]}")
            seen.add(name)
    return clips


def _list(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (name without extension, 'train', 'test' or '') of a list."""
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            name, _, flag = line.strip().rpartition(" ")
            if flag not in _FLAGS or not name.strip().lower().endswith(".avi"):
                raise UsageError(
                    f"{path} row {number} is {line.strip()!r}; expected 'NAME.avi FLAG' with the "
                    "flag 1 (train), 2 (test) or 0 (unused). Download the lists again."
                )
            yield name.strip()[:-4], _FLAGS[flag]


def _note_lists(report: Report) -> None:
    """Name the lists in one line (there are 153), and say how many are not there."""
    count = Counter(str(Path(path).parent) for path in report.annotations)
    expected = 3 * len(CLASSES)
    if sum(count.values()) < expected:
        report.notes.append(
            f"{sum(count.values())} of the {expected} lists were found; the clips of the others "
            "are not known. Unpack all of test_train_splits.rar."
        )
    report.annotations = [f"{folder} ({n} lists)" for folder, n in sorted(count.items())]


HMDB51 = Dataset(
    name="hmdb51",
    title="HMDB51",
    what="Clips of 51 human actions from films and the web, without sound, in three splits.",
    scale="6,766 clips of 3 s on average, 6 hours, 2 GB",
    licence=LICENCE,
    layouts=(
        "ROOT/CLASS/NAME.avi               the class archives, unpacked (any folder above CLASS)\n"
        "ROOT/.../NAME_CLASS_f_cm_np1_ba_goo_0.avi    the name says the class"
    ),
    scan=scan,
    annotations=(
        "the 153 lists CLASS_test_split1.txt ... below ROOT (testTrainMulti_7030_splits/), or "
        "named by --annotations; without them no row has a split"
    ),
    download=(
        "hmdb51_org.rar and test_train_splits.rar, from the HMDB page of the Serre lab (Brown\n"
        "University); unpack both, and the 51 archives inside the first, with unrar or unar"
    ),
    official={f"hmdb51:{s}{n}": c for n in (1, 2, 3) for s, c in (("train", 3570), ("test", 1530))},
)
"""The registry's entry."""
