"""One face over time: what was seen of it, filling short gaps, and choosing among several."""

from dataclasses import dataclass, field
from itertools import pairwise

from pipeline.crops import Patch
from pipeline.detector import SURE_SCORE, Box, Detection, overlap

STRONG_SCORE = 1.0
POINT_REACH = 1.0
"""The point means a face no further from it than this share of its width."""
ENOUGH_DETECTIONS = 3
"""Fewer detections make a face only if one of them is strong."""
SAME_PLACE_CENTRES = 0.8
"""In one shot a face found again is the same if it moved less than this share of its width."""
SAME_PLACE_OVERLAP = 0.5
"""Across a cut it must lie where it was."""


@dataclass(frozen=True)
class Sight:
    """A face in one picture of the grid, or the place where it was missed."""

    detection: Detection | None
    """None where the detector missed it."""
    patch: Patch
    shot: int


@dataclass
class Track:
    """The sights of one face by tick."""

    sights: dict[int, Sight] = field(default_factory=dict)
    box: Box = (0.0, 0.0, 1.0, 1.0)
    """Where it was last."""
    score: float = 0.0
    """Of the last detection."""
    shot: int = 0
    """The shot it was last seen in."""
    last_tick: int = -1
    """When it was last detected."""
    weak_run: int = 0
    """Weak detections in a row."""
    speed: float = 1.0
    """How far it moved lately in one tick, as a share of its width."""

    @property
    def width(self) -> float:
        """Of the last box, displayed pixels."""
        return self.box[2] - self.box[0]

    def add(self, tick: int, sight: Sight) -> None:
        """Record a sight that follows the others in time."""
        self.sights[tick] = sight
        if sight.detection is None:
            return
        moved = distance(centre(sight.detection.box), centre(self.box)) / sight.detection.width
        self.speed = max(moved, self.speed / 2) if self.last_tick == tick - 1 else 1.0
        self.box, self.shot, self.last_tick = sight.detection.box, sight.shot, tick
        self.score = sight.detection.score
        self.weak_run = self.weak_run + 1 if sight.detection.score < SURE_SCORE else 0

    def detections(self, frames: int) -> dict[int, Detection]:
        """What was detected on the first ticks."""
        return {
            tick: sight.detection
            for tick, sight in sorted(self.sights.items())
            if sight.detection is not None and tick < frames
        }

    def continues_with(self, face: Detection, shot: int) -> bool:
        """Whether a face found by looking is this one, lost before."""
        if shot != self.shot:
            return overlap(face.box, self.box) > SAME_PLACE_OVERLAP
        near = SAME_PLACE_CENTRES * max(self.width, face.width)
        return (
            0.5 < face.width / self.width < 2
            and distance(centre(face.box), centre(self.box)) < near
        )


def centre(box: Box) -> tuple[float, float]:
    """The middle of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Euclidean."""
    return float(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5)


def filled_boxes(track: Track, frames: int, longest_gap: int) -> dict[int, Box]:
    """Boxes for the gaps between two detections of one shot, interpolated.

    Args:
        track: the track.
        frames: ticks of the clip.
        longest_gap: most ticks without a detection that are filled.
    """
    ticks = list(track.detections(frames))
    filled: dict[int, Box] = {}
    for before, after in pairwise(ticks):
        gap = range(before + 1, after)
        same_shot = track.sights[before].shot == track.sights[after].shot
        if same_shot and 0 < len(gap) <= longest_gap and all(t in track.sights for t in gap):
            filled |= {t: _between(track, before, after, t) for t in gap}
    return filled


def _between(track: Track, before: int, after: int, tick: int) -> Box:
    share = (tick - before) / (after - before)
    first, second = track.sights[before].detection, track.sights[after].detection
    assert first is not None and second is not None
    pairs = zip(first.box, second.box, strict=True)
    x0, y0, x1, y1 = ((1 - share) * a + share * b for a, b in pairs)
    return x0, y0, x1, y1


def ranked(
    tracks: list[Track], frames: int, point: tuple[float, float] | None, point_ticks: int
) -> list[tuple[Track, str]]:
    """Believable tracks with the rule that chose them, best first.

    Args:
        tracks: all candidates.
        frames: ticks of the clip.
        point: where the speaker's face is during the first second, displayed pixels.
        point_ticks: ticks in which the point holds.
    """
    believed = [track for track in tracks if _is_believable(track, frames)]
    believed.sort(key=lambda track: -_prominence(track, frames))
    pointed = _at_point(believed, point, point_ticks) if point is not None else None
    if pointed is None:
        return [(track, "largest") for track in believed]
    others = [(track, "largest") for track in believed if track is not pointed]
    return [(pointed, "point"), *others]


def _is_believable(track: Track, frames: int) -> bool:
    found = track.detections(frames).values()
    strongest = max((face.score for face in found), default=SURE_SCORE)
    return strongest >= STRONG_SCORE or (len(found) >= ENOUGH_DETECTIONS and strongest > SURE_SCORE)


def _prominence(track: Track, frames: int) -> float:
    """Size times length: the sum of the widths."""
    return sum(face.width for face in track.detections(frames).values())


def _at_point(tracks: list[Track], point: tuple[float, float], point_ticks: int) -> Track | None:
    """The track nearest to the point while the point holds; None if nobody was there then."""
    near: list[tuple[float, int]] = []
    for number, track in enumerate(tracks):
        for face in track.detections(point_ticks).values():
            away = distance(centre(face.box), point)
            if away < POINT_REACH * face.width:
                near.append((away, number))
    return tracks[min(near)[1]] if near else None
