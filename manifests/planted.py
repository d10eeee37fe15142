"""`planted`: a corpus rendered here in which global and local information are planted and known.

Each clip shows a performer that says words with its mouth: scene, body (shape and hue) and timbre
go together and make one of ten classes; which words it says, and when, has nothing to do with it.
What is true of a clip is in its row: class in `labels`, words in `words` and `transcript`, the
seconds that bouts of words fill in `segments`, the performer's box and mouth, bouts and onsets in
`extra`.

Each clip has a performer of its own (colours, voice, tempo: `group_id`), and a background; splits
share no sequence of words, either.

    python -m manifests build --dataset planted
    make shards DATASET=planted ARGS="--planted-clips 600 --planted-seconds 7"

What simple means get of the test split of 600 clips (logistic regression on the other two splits,
the best of five strengths on the test split itself; frames of the profile glcm at 10 a second,
whole ones scaled to 32 x 32 pixels, cuts to the performer to 24 x 24; words by their first 100
principal components), measured with `render.planted.VERSION` 5 by `python -m
tests.manifests.planted_means SHARDS`:

| task | seen or heard | right |
|---|---|---|
| class, chance 0.10 | mean colour of the clip | 0.13 |
| | histogram of its colours | 0.89 |
| | a frame of 16 x 16 pixels | 0.41 |
| | mean mel | 0.84 |
| | mean and deviation of mel | 0.96 |
| word, chance 0.05 | mean of its 7 whole frames | 0.05 |
| | its 7 whole frames | 0.06 |
| | mean of its 7 frames cut to the performer: sets of shapes, not their order | 0.17 |
| | its 7 frames cut to the performer | 0.91 |
| | mel of its 0.7 s | 0.86 |

Pictures are 128 x 128 at 30 frames a second, sound is stereo of 24 kHz, so that every profile can
be made from them; a mouth shape lasts 0.15 to 0.19 s, so that 10 frames a second show each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions

if TYPE_CHECKING:
    from manifests.render.planted import Clip

LICENCE = "generated here: free to use"


def clips(options: ScanOptions) -> list[Clip]:
    """The clips that are wished for, in the order of their numbers."""
    from manifests.render.planted import Clip

    seconds, seed = float(options.planted_seconds), options.planted_seed
    shares = float(options.planted_nuisance), float(options.planted_light)
    return [Clip(number, seconds, seed, *shares) for number in range(options.planted_clips)]


def generate(
    root: Path, wanted: Sequence[Clip], workers: int | None = None
) -> list[dict[str, Any]]:
    """Render what is missing; see `manifests.render.kept`."""
    from manifests.render.kept import Renderer
    from manifests.render.planted import describe, render

    return Renderer(render, describe).kept(root, wanted, workers)


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Make one row per clip, rendering the clips that are not there."""
    from manifests.render.planted import CLASSES

    wanted = clips(options)
    facts = generate(root, wanted)
    report = Report("planted", LICENCE, vocabulary=list(CLASSES))
    report.notes.append(
        f"{len(wanted):,} clips of {options.planted_seconds:g} s by the seed "
        f"{options.planted_seed}, nuisance {options.planted_nuisance:g}, light "
        f"{options.planted_light:g}"
    )
    return table(_row(clip, about) for clip, about in zip(wanted, facts, strict=True)), report


def _row(clip: Clip, about: dict[str, Any]) -> Row:
    """The manifest row of a clip."""
    words = about["words"]
    return {
        "dataset": "planted",
        "key": f"planted/{clip.name}",
        "source_id": f"planted:{clip.name}",
        "group_id": f"planted:{clip.who}",
        "uri": about["uri"],
        "splits": [f"planted:{clip.split}"],
        "labels": [clip.label],
        "label_names": [clip.label_name],
        "segments": [{"start_s": start, "end_s": end, "label": clip.label}
                     for start, end in busy_seconds(about["bouts"], clip.seconds)],
        "transcript": " ".join(word["w"] for word in words),
        "words": words,
        "extra": extra(truth={**about["truth"], "bouts": about["bouts"]}),
        "bytes": about["bytes"],
    }  # fmt: skip


def busy_seconds(bouts: Sequence[Sequence[float]], seconds: float) -> list[tuple[float, float]]:
    """Runs of whole seconds of which bouts fill at least a half, as AVE labels its clips.

    Args:
        bouts: start and end of each, in seconds; they do not overlap.
        seconds: length of the clip; a last second that is not whole has no label.
    """
    runs: list[tuple[float, float]] = []
    for second in range(int(seconds)):
        inside = [max(0.0, min(end, second + 1) - max(start, second)) for start, end in bouts]
        if sum(inside) < 0.5:
            continue
        first = runs.pop()[0] if runs and runs[-1][1] == second else float(second)
        runs.append((first, second + 1.0))
    return runs


PLANTED = Dataset(
    name="planted",
    title="the planted corpus",
    what="Performers of ten classes saying words of mouth shapes, rendered here, all of it known.",
    scale="600 clips of 7 s by default, 150 MB, made in about 4 minutes on two cores",
    licence=LICENCE,
    layouts="ROOT/NUMBER.mp4; what is missing is rendered, nothing is downloaded",
    scan=scan,
    options=(
        *("planted_clips", "planted_seconds", "planted_seed"),
        *("planted_nuisance", "planted_light"),
    ),
    rescan_always=True,
    generated=True,
)
"""The registry's entry."""
