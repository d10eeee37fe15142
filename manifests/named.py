"""Files of benchmarks whose names say which clip they are: UCF101, HMDB51, AVE, ESC-50, DCASE2013.

Web-video clips, whose names hold an id and times, are in manifests/clips.py.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from manifests.dataset import Report
from manifests.listing import Entry, Listing

Name = TypeVar("Name", bound=Hashable)


def files_by_name(
    listing: Listing,
    kinds: frozenset[str],
    name_of: Callable[[Entry], Name | None],
    report: Report,
) -> dict[Name, Entry]:
    """Return one file for each clip, by what its name says.

    Of several copies the first path counts, but an empty file loses against a full one. The report
    counts copies, files of other kinds (a sound track beside its video) and names that say nothing.

    Args:
        listing: the data set's folder.
        kinds: extensions that a clip may have.
        name_of: reads a name; None: it is none of this data set.
        report: takes the counts.
    """
    report.ignored.update(listing.ignored)
    report.ignored.update(listing.other_kinds())
    files: dict[Name, Entry] = {}
    for entry in listing.media():
        if entry.suffix not in kinds:
            report.ignored[f"*{entry.suffix} beside the clips"] += 1
        elif (name := name_of(entry)) is None:
            report.ignored[f"media files whose name is none of {report.dataset}"] += 1
        else:
            report.duplicate_files += name in files
            if name not in files or (entry.bytes and not files[name].bytes):
                files[name] = entry
    return files


def usual_folder(entries: Iterable[Entry], levels: int, default: str) -> str:
    """Return the folder that most clips lie `levels` folders below, to name missing files by.

    Args:
        entries: the clips found.
        levels: 1 for `FOLDER/clip`, 2 for `FOLDER/CLASS/clip`.
        default: the folder of the data set as distributed, where no clip was found.
    """
    folders: Counter[str] = Counter()
    for entry in entries:
        path = entry.path
        for _ in range(levels):
            path = os.path.dirname(path)
        folders[path] += 1
    return folders.most_common(1)[0][0] if folders else default


def below(folder: str, *names: str) -> str:
    """Return a path below a folder, which may be the root (an empty name)."""
    return "/".join([folder, *names] if folder else names)
