"""UCF101: 13,320 YouTube clips of 101 human actions, with three official splits.

Where from: the Center for Research in Computer Vision of the University of Central Florida.
Layout: `UCF-101/CLASS/v_CLASS_gGG_cCC.avi` (also `videos/`, or flat); clips of one group GG were
cut from one video. Lists: `trainlist01.txt` (`CLASS/NAME.avi NUMBER`) and `testlist01.txt` (no
number), 01 to 03, with Windows line ends. Clips of HandstandPushups are called HandStandPushups.

Test of split 1, 2, 3 are the groups 1-7, 8-14, 15-21, train is all others (seen in the lists, for
all 13,320 clips), so the official splits are known without the lists; with them the missing clips
are known by name. Splits are `ucf101:train1`, `ucf101:test1` and so on; the number given by papers
is the mean of the three. Class numbers are the official ones less 1. Half of the clips have no
sound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from manifests.annotations import find_named, open_text
from manifests.columns import Row, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.errors import UsageError
from manifests.listing import VIDEO_KINDS, Entry, to_uri
from manifests.named import below, files_by_name, usual_folder

LICENCE = "none stated; customary for academic research (Soomro et al. 2012)"
CLASSES = [
    *("ApplyEyeMakeup", "ApplyLipstick", "Archery", "BabyCrawling", "BalanceBeam"),
    *("BandMarching", "BaseballPitch", "Basketball", "BasketballDunk", "BenchPress", "Biking"),
    *("Billiards", "BlowDryHair", "BlowingCandles", "BodyWeightSquats", "Bowling"),
    *("BoxingPunchingBag", "BoxingSpeedBag", "BreastStroke", "BrushingTeeth", "CleanAndJerk"),
    *("CliffDiving", "CricketBowling", "CricketShot", "CuttingInKitchen", "Diving", "Drumming"),
    *("Fencing", "FieldHockeyPenalty", "FloorGymnastics", "FrisbeeCatch", "FrontCrawl"),
    *("GolfSwing", "Haircut", "Hammering", "HammerThrow", "HandstandPushups"),
    *("HandstandWalking", "HeadMassage", "HighJump", "HorseRace", "HorseRiding", "HulaHoop"),
    *("IceDancing", "JavelinThrow", "JugglingBalls", "JumpingJack", "JumpRope", "Kayaking"),
    *("Knitting", "LongJump", "Lunges", "MilitaryParade", "Mixing", "MoppingFloor"),
    *("Nunchucks", "ParallelBars", "PizzaTossing", "PlayingCello", "PlayingDaf", "PlayingDhol"),
    *("PlayingFlute", "PlayingGuitar", "PlayingPiano", "PlayingSitar", "PlayingTabla"),
    *("PlayingViolin", "PoleVault", "PommelHorse", "PullUps", "Punch", "PushUps", "Rafting"),
    *("RockClimbingIndoor", "RopeClimbing", "Rowing", "SalsaSpin", "ShavingBeard", "Shotput"),
    *("SkateBoarding", "Skiing", "Skijet", "SkyDiving", "SoccerJuggling", "SoccerPenalty"),
    *("StillRings", "SumoWrestling", "Surfing", "Swing", "TableTennisShot", "TaiChi"),
    *("TennisSwing", "ThrowDiscus", "TrampolineJumping", "Typing", "UnevenBars"),
    *("VolleyballSpiking", "WalkingWithDog", "WallPushups", "WritingOnBoard", "YoYo"),
]
"""The vocabulary, in the order of classInd.txt."""
_NUMBER = {name.casefold(): number for number, name in enumerate(CLASSES)}
_FILE_NAME = {"HandstandPushups": "HandStandPushups"}
_NAME = re.compile(r"v_(\w+)_g(\d\d)_c(\d\d)\.\w+")
_LIST = re.compile(r"(train|test)list0?([123])")
_FOLDS = (1, 2, 3)
_GROUPS_PER_TEST = 7


class Clip(NamedTuple):
    """What a file's name says."""

    label: int
    group: int
    clip: int

    @property
    def stem(self) -> str:
        """The official file name, without extension."""
        name = CLASSES[self.label]
        return f"v_{_FILE_NAME.get(name, name)}_g{self.group:02d}_c{self.clip:02d}"


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Read class and group off the names below `root`, and the splits off the official lists."""
    report = Report("ucf101", LICENCE, vocabulary=CLASSES)
    report.protocols = [[f"ucf101:train{n}", f"ucf101:test{n}"] for n in _FOLDS]
    listing = options.walk(root)
    files = files_by_name(listing, VIDEO_KINDS, lambda e: _clip(e.path), report)
    splits = _listed(root, options, report)
    if splits:
        report.files_without_row = len(files.keys() - splits.keys())
    elif files:
        report.notes.append(
            "The lists trainlist01.txt ... were not found: the splits come from the groups in the "
            "names, which is what the official lists hold, and missing clips are not known by name."
        )
        splits = {clip: _official_splits(clip) for clip in files}
    folder = usual_folder(files.values(), 2, "UCF-101")
    return table(_row(c, files.get(c), folder, splits[c]) for c in splits), report


def _row(clip: Clip, entry: Entry | None, folder: str, splits: list[str]) -> Row:
    name = CLASSES[clip.label]
    expected = below(folder, name, f"{clip.stem}.avi")
    return {
        "dataset": "ucf101",
        "key": f"ucf101/{clip.stem}",
        "source_id": f"ucf101:{clip.stem}",
        "group_id": f"ucf:{name}/g{clip.group:02d}",
        "uri": expected if entry is None else to_uri(entry.path),
        "splits": splits,
        "labels": [clip.label],
        "label_names": [name],
        "expect": {"video": True, "audio": None},
        "anchored": True,
        "bytes": None if entry is None else entry.bytes,
    }


def _clip(path: str) -> Clip | None:
    """Return what a path's last part says; None: it is no clip of UCF101."""
    found = _NAME.fullmatch(path.rpartition("/")[2])
    label = _NUMBER.get(found[1].casefold()) if found else None
    if found is None or label is None:
        return None
    return Clip(label, int(found[2]), int(found[3]))


def _official_splits(clip: Clip) -> list[str]:
    """Return a clip's part in each split, which its group decides."""
    test = (clip.group - 1) // _GROUPS_PER_TEST + 1
    return [f"ucf101:{'test' if n == test else 'train'}{n}" for n in _FOLDS]


def _listed(root: Path, options: ScanOptions, report: Report) -> dict[Clip, list[str]]:
    """Return the splits of every clip in the lists; empty: there are no lists."""
    splits: dict[Clip, list[str]] = {}
    for path in find_named(root, options, _LIST.pattern + r"\.txt"):
        found = _LIST.fullmatch(path.stem.lower())
        assert found is not None
        split = f"ucf101:{found[1]}{found[2]}"
        report.annotations.append(str(path))
        for clip in _list(path):
            of_clip = splits.setdefault(clip, [])
            if split in of_clip:
                report.duplicate_rows += 1
            else:
                of_clip.append(split)
    return splits


def _list(path: Path) -> Iterator[Clip]:
    """Yield the clips of a list; the number at the end of a line is the class, known by name."""
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            clip = _clip(line.split()[0])
            if clip is None:
                raise UsageError(
                    f"{path} row {number} is {line.strip()!r}; expected a clip such as "
                    "'Archery/v_Archery_g08_c01.avi' of one of the 101 classes. Download the lists "
                    "again."
                )
            yield clip


UCF101 = Dataset(
    name="ucf101",
    title="UCF101",
    what="YouTube clips of 101 human actions, in three official splits.",
    scale="13,320 clips of 7 s on average, 27 hours, 7 GB",
    licence=LICENCE,
    layouts=(
        "ROOT/UCF-101/CLASS/v_CLASS_g01_c01.avi      as distributed (any folder above CLASS)\n"
        "ROOT/.../v_CLASS_g01_c01.avi                the name says class and group"
    ),
    scan=scan,
    annotations=(
        "trainlist01.txt ... testlist03.txt below ROOT (ucfTrainTestlist/), or named by "
        "--annotations; without them the splits come from the names"
    ),
    download=(
        "UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip, from the UCF101 page of the\n"
        "University of Central Florida (Center for Research in Computer Vision); unpack both"
    ),
    official={
        "ucf101:train1": 9537,
        "ucf101:test1": 3783,
        "ucf101:train2": 9586,
        "ucf101:test2": 3734,
        "ucf101:train3": 9624,
        "ucf101:test3": 3696,
    },
)
"""The registry's entry."""
