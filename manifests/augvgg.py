"""AugVGG: the test clips of VGG-Sound, manipulated four ways; the queries of `fingerprint`.

Jenni, Black and Collomosse (AAAI 2023, "Augmented VGG-Sound") look for each manipulated clip among
the clean ones. No files are distributed: a row names a file of VGG-Sound and a recipe
(manifests/recipes.py), which `pipeline.augment` carries out on decoded pictures and sound. So ROOT
is a VGG-Sound folder, and the gallery is the shards of `vggsound`.

    augvgg:IP  in place: noise, blur, pixels or an emoji; noise or clicks
    augvgg:S   spatial: crop, border or rotation; pitch, reverberation or a filter
    augvgg:T   time: speed or a shorter stretch, picture and sound together
    augvgg:C   all of them: one of each of these groups

The paper publishes neither ranges nor recipes, so numbers are comparable among users of this
program only; the recipe of each query is in the manifest and in the sample. Every clip of the
test set is a row of each set, whether its file is there or not, as everywhere. The same can be done
to another collection: `--reference folder`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.errors import UsageError
from manifests.recipes import SETS, draw
from manifests.vggsound import VGGSOUND

_HELD_OUT = ("test", "val")
_TEST_CLIPS = 15446
"""Rows of VGG-Sound's test.csv."""
_OWN_OPTIONS = ("reference", "recipe_seed")


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Scan the reference data set in `root` and give each held-out clip four recipes."""
    reference = _reference(options)
    whole, report = reference.scan(root, options)
    clips, which = _held_out(whole)
    report.dataset = "augvgg"
    report.notes += [
        f"{len(clips):,} of {len(whole):,} rows of {reference.title} are manipulated ({which}), "
        f"each in {len(SETS)} ways, with the seed {options.recipe_seed}; counts of files are its.",
    ]
    report.protocols = [[f"augvgg:{name}"] for name in SETS]  # the same clips, by design
    is_the_papers = reference.name == VGGSOUND.name
    report.official = {f"augvgg:{name}": _TEST_CLIPS for name in SETS} if is_the_papers else {}
    return table(_rows(clips, reference.name, options.recipe_seed)), report


def _reference(options: ScanOptions) -> Dataset:
    """The data set whose clips are manipulated.

    Raises:
        UsageError: there is no such data set, it cannot be one, or it has no such options.
    """
    import manifests  # the registry imports this file

    reference = manifests.dataset(options.reference)
    if reference.name in ("augvgg", "table"):
        raise UsageError(
            f"--reference {reference.name}: expected a data set of clips below ROOT, such as "
            "vggsound (the paper's) or folder. A table may carry recipes of its own: columns "
            "reference_key, transforms and seed, see manifests/recipes.py."
        )
    heard = (*reference.options, *_OWN_OPTIONS)
    if deaf := [name for name in options.changed() if name not in heard]:
        raise UsageError(
            f"the data set {reference.name} (--reference) has no option {', '.join(deaf)}; leave "
            "it out."
        )
    return reference


def _held_out(whole: pa.Table) -> tuple[pa.Table, str]:
    """The rows of the test split, or of the validation split, or all; and which, in words."""
    flat, parents = pc.list_flatten(whole["splits"]), pc.list_parent_indices(whole["splits"])
    for split in _HELD_OUT:
        inside = pc.match_substring_regex(flat, rf":{split}\z")
        rows = pc.unique(pc.filter(parents, inside))
        if len(rows):
            return whole.take(rows), f"those of the {split} split"
    return whole, "all, as none says to be of a test or val split"


def _rows(clips: pa.Table, reference: str, seed: int) -> Iterator[Row]:
    for batch in clips.to_batches(max_chunksize=1000):
        for clip in batch.to_pylist():
            yield from (_row(clip, name, reference, seed) for name in SETS)


def _row(clip: Row, name: str, reference: str, seed: int) -> Row:
    """The clip's row as a query; what is said or pointed at in it holds no longer."""
    key = clip["key"]
    recipe = extra(reference_key=key, transforms=draw(name, seed, key), seed=seed)
    return {
        **clip,
        "dataset": "augvgg",
        "key": f"augvgg-{name}/{key.removeprefix(f'{reference}/')}",
        "splits": [f"augvgg:{name}"],
        "extra": recipe,
        "segments": [],
        "face_xy": None,
        "transcript": None,
        "words": [],
    }


AUGVGG = Dataset(
    name="augvgg",
    title="AugVGG",
    what="The test clips of VGG-Sound, manipulated in four ways: queries for fingerprinting.",
    scale="15,446 clips x 4, about 172 hours",
    licence=f"that of the clips which are manipulated; VGG-Sound: {VGGSOUND.licence}",
    layouts="a VGG-Sound folder (or that of another data set, with --reference NAME):\n"
    + VGGSOUND.layouts,
    scan=scan,
    annotations=VGGSOUND.annotations,
    options=("annotations", "window_seconds", "hop_seconds", "label_set", *_OWN_OPTIONS),
    raw=VGGSOUND.raw_name,
)
"""The registry's entry."""
