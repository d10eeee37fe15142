"""Whole clips: floor, ours and naive, interleaved over one file."""

from functools import partial

import av

from bench import floor, naive, ours
from bench.goals import Measured
from bench.media import Media
from bench.stopwatch import Way, interleaved, ratio
from pipeline.config import Faces


def measure(media: Media, repeats: int) -> list[Measured]:
    """The lines of one file: faces looked for, and for Kinetics-like clips also not."""
    modes: tuple[Faces, ...] = ("off", "auto") if media.kind == "kinetics" else ("auto",)
    size = _displayed_size(media)
    ways: dict[str, Way] = {"floor": partial(floor.decode, media.path)}
    for mode in modes:
        ways[mode] = partial(ours.shard, media.path, ours.config(mode))
        ways[f"naive {mode}"] = partial(naive.shard, media.path, faces=mode != "off", size=size)
    naive.load_models()
    spent = interleaved(ways, repeats, once=() if media.kind == "kinetics" else ["naive auto"])
    return [_line(media, mode, spent) for mode in modes]


def _line(media: Media, mode: Faces, spent: dict[str, list[float]]) -> Measured:
    goal = "kinetics auto" if media.kind == "kinetics" and mode == "auto" else media.kind
    rounds = {"floor": spent["floor"], "ours": spent[mode], "naive": spent[f"naive {mode}"]}
    facts = {
        "cpu_seconds": {way: round(min(seconds), 4) for way, seconds in rounds.items()},
        "rounds": {way: [round(s, 4) for s in seconds] for way, seconds in rounds.items()},
        "made": media.made,
    }
    mine, others = ratio(rounds, "ours", "floor"), ratio(rounds, "naive", "floor")
    return Measured(goal, media.name, mine, others, facts)


def _displayed_size(media: Media) -> tuple[int, int]:
    """Width and height as the ffmpeg program writes them: turned upright."""
    with av.open(str(media.path)) as container:
        frame = next(container.decode(video=0))
        turned = frame.rotation % 180 != 0
        return (frame.height, frame.width) if turned else (frame.width, frame.height)
