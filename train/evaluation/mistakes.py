"""A picture of what was read wrongly: frames of the surest mistakes of a round."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from train.evaluation.clips import read_clips
from train.evaluation.job import Job
from train.evaluation.result import Predictions

SHOWN, COLUMNS, FRAMES = 12, 2, 6
"""Mistakes, how many beside each other, and frames of each."""
WIDTH, HEIGHT = 5.4, 1.25
"""Inches of one."""
QUALITY = 80
"""Of the JPEG: photographs as PNG are eight times as large."""
Pixels = npt.NDArray[np.uint8]


def draw_mistakes(path: Path, job: Job, predictions: Predictions) -> bool:
    """Write frames of the middle window of each, evenly spread, under what it is and was said.

    Returns:
        Whether there is a picture: not where nothing is seen, examples have no class of their own,
        or none was mistaken; an older picture is then removed.
    """
    surest = sorted(predictions.mistakes(), reverse=True)[:SHOWN]
    known = predictions.names == [example.name for example in job.test]
    if not surest or not known or not job.settings.uses_pictures:
        path.unlink(missing_ok=True)
        return False
    from matplotlib.figure import Figure

    rows = -(-len(surest) // COLUMNS)
    figure = Figure(figsize=(WIDTH * COLUMNS, HEIGHT * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    strips = strips_of(job, [mistake.place for mistake in surest])
    for axes, mistake, strip in zip(grid, surest, strips, strict=False):
        axes.imshow(strip)
        axes.set_title(f"{mistake.name}: is {mistake.is_}, said {mistake.said} "
                       f"({mistake.score:.2f})", fontsize=8)  # fmt: skip
    figure.suptitle(f"The surest of {len(predictions.mistakes()):,} mistakes", fontsize=9)
    figure.savefig(path, dpi=100, pil_kwargs={"quality": QUALITY})
    return True


def strips_of(job: Job, places: list[int]) -> list[Pixels]:
    """(S, FRAMES x S, 3) of each of some test examples, as they are read for scoring."""
    looks = job.scored([job.test[place] for place in places], 1)
    examples = [job.test[place] for place in places]
    strips = []
    for batch in read_clips(
        job.labelled.shard_set, examples, job.view, [[one] for one in looks], 0
    ):
        assert batch.video is not None
        frames = batch.video[0].numpy()
        picked = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
        strips.append(np.concatenate(list(frames[picked]), axis=1))
    return strips
