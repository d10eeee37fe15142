"""Finds the faces of a clip and follows them: boxes, landmarks, face and lip crops.

One `FaceFollower` a clip. It *looks* at whole pictures now and then, and *follows* what it finds
on every picture, searching only around the last box. Pictures since the last look are kept for at
most a second, so that a face is also followed backwards to where it appeared. What must wait for
the end waits: gaps are filled between detections, landmarks are predicted in one go (the model
is 100 MB of trees, which video decoding keeps throwing out of the cache), and the lip crops get
the one scale that suits the clip.

    auto    one look a second; costs little where there is no face
    on      looks more often and deeper while no face is known
"""

from collections import deque
from dataclasses import dataclass, replace
from fractions import Fraction

from pipeline import detector
from pipeline.config import ShardConfig
from pipeline.crops import PatchKeeper
from pipeline.detector import SURE_SCORE, Box, Detection
from pipeline.frame import Frame
from pipeline.shots import ShotCounter, is_cut
from pipeline.stored import FaceTrack, stored_track
from pipeline.tracks import STRONG_SCORE, Sight, Track, ranked

__all__ = ["FaceFollower", "FaceTrack"]

SPARE_CANDIDATES = 3
"""Faces followed beside the wanted number, until the best are known."""
RIVAL_WIDTH = 0.5
"""A face below this share of the widest one's width is not followed."""
CALM_MARGIN = 0.1
DOUBTFUL_MARGIN = 0.2
WIDE_MARGIN = 0.4
"""How far around the last box a face is searched, as a share of its size: beyond what it moved
lately, little for a face that was clear, more for a doubtful one, and wide where that fails."""
GAP_SECONDS = 0.3
"""Longest time without a detection that is filled, and after which a face counts as lost."""
LOOK_SECONDS = 1.0
FIRST_RETRY_SECONDS = 0.2
REFRESH_SECONDS = 5.0
"""How often a followed clip is searched for more faces."""
POINT_SECONDS = 1.0
"""How long AVSpeech's point holds."""
MOST_ENLARGED = 4.0
"""Pixels are at most doubled each way: what is a face only then has no lips to read."""
PENDING_BYTES = 64 << 20
"""Decoded pictures kept for following backwards."""


def look_pixels(frame: Frame) -> float:
    """The budget of a plain look: it grows with the picture as the cost of decoding does.

    Finds faces from 18 % of the width of a 640x360 picture, 11 % of 1280x720, 8 % of 1920x1080.
    """
    pixels = frame.width * frame.height
    return min(42e3 + pixels / 4, 600e3, MOST_ENLARGED * pixels)


def on_pixels(frame: Frame) -> float:
    """The budget of a look where faces are expected: 99 % of the talking heads we have."""
    enlarged = MOST_ENLARGED * frame.width * frame.height
    return max(min(180e3, enlarged), look_pixels(frame))


def deep_pixels(frame: Frame) -> float:
    """The budget of a look after a look found nothing: small pictures doubled, large ones whole."""
    pixels = frame.width * frame.height
    return max(min(400e3, MOST_ENLARGED * pixels), min(0.6 * pixels, 1.3e6))


@dataclass(frozen=True)
class _Seen:
    """A picture and where it belongs."""

    tick: int
    frame: Frame
    shot: int


class FaceFollower:
    """Follows the faces of one clip.

    Args:
        config: `faces` must be `auto` or `on`; decides crops and how many tracks are stored.
        fps: ticks a second.
        point: AVSpeech's point, 0 to 1 of the displayed picture, valid in the first second.
    """

    def __init__(
        self, config: ShardConfig, fps: Fraction | float, point: tuple[float, float] | None = None
    ) -> None:
        self._config = config
        self._fps = float(fps)
        self._point = point
        self._deep = config.faces == "on"
        self._gap_ticks = max(1, int(GAP_SECONDS * self._fps))
        self._shots = ShotCounter()
        self._patches = PatchKeeper(config.crop_size)
        self._tracks: list[Track] = []
        self._followed: list[Track] = []
        self._pending: deque[_Seen] = deque(maxlen=max(1, round(self._fps * LOOK_SECONDS)))
        self._frame: Frame | None = None
        self._speaker: Track | None = None
        self._next_look = 0
        self._retry_seconds = FIRST_RETRY_SECONDS

    def see(self, tick: int, frame: Frame) -> None:
        """Take in the picture of a tick; ticks come in order from 0, pictures may repeat."""
        if frame is self._frame:
            self._repeat(tick)
            return
        self._frame = frame
        cut = bool(self._tracks) and self._shots.see(frame)
        lost = self._follow_all(tick, frame)
        seen_now = sum(track.last_tick == tick for track in self._followed)
        if seen_now < self._config.face_tracks:
            self._remember(tick, frame)
        else:
            self._pending.clear()
        if tick >= self._next_look or lost or (cut and seen_now < len(self._followed)):
            self._look(_Seen(tick, frame, self._shots.shot))
        self._drop_rivals(tick)

    def finish(self, frames: int) -> list[FaceTrack]:
        """The stored tracks of a clip of so many ticks, at most `face_tracks`, best first."""
        self._look_at_the_end(frames)
        best = self._ranked(frames)
        return [
            stored_track(track, rule, frames, self._config, self._fps, self._gap_ticks)
            for track, rule in best[: self._config.face_tracks]
        ]

    def _ranked(self, frames: int) -> list[tuple[Track, str]]:
        point = None
        if self._point is not None and self._frame is not None:
            point = (self._point[0] * self._frame.width, self._point[1] * self._frame.height)
        return ranked(self._tracks, frames, point, self._ticks(POINT_SECONDS))

    def _look_at_the_end(self, frames: int) -> None:
        """Where faces are expected, nobody who came after the last look is left out."""
        unseen = [past for past in self._pending if past.tick < frames]
        if self._deep and unseen:
            self._look(unseen[-1])
        self._pending.clear()

    def _ticks(self, seconds: float) -> int:
        return max(1, round(seconds * self._fps))

    def _repeat(self, tick: int) -> None:
        """The same picture again shows the same faces."""
        if self._pending and self._pending[-1].tick == tick - 1:
            self._pending.append(replace(self._pending[-1], tick=tick))
        for track in self._followed:
            if tick - 1 in track.sights:
                track.add(tick, track.sights[tick - 1])

    # --- following ---

    def _follow_all(self, tick: int, frame: Frame) -> bool:
        """Search around every followed face; whether one is given up."""
        for track in self._followed:
            self._follow(track, tick, frame)
        self._merge(tick)
        kept = [t for t in self._followed if tick - t.last_tick <= self._gap_ticks]
        lost = len(kept) < len(self._followed)
        self._followed = kept
        return lost

    def _follow(self, track: Track, tick: int, frame: Frame) -> None:
        least = CALM_MARGIN if track.score >= STRONG_SCORE else DOUBTFUL_MARGIN
        margin = min(least + track.speed, WIDE_MARGIN)
        face = detector.near(frame, track.box, margin)
        if margin < WIDE_MARGIN and (face is None or face.score < SURE_SCORE):
            face = detector.near(frame, track.box, WIDE_MARGIN) or face
        if face is not None and not self._is_trusted(track, face):
            face = None
        track.add(tick, self._sight(frame, face, track.box, self._shots.shot))

    def _is_trusted(self, track: Track, face: Detection) -> bool:
        """Weak answers bridge moments; alone they would cling to the background for ever."""
        if face.score < SURE_SCORE and track.weak_run >= 2 * self._gap_ticks:
            return False
        return track.shot == self._shots.shot or track.continues_with(face, self._shots.shot)

    def _sight(self, frame: Frame, face: Detection | None, box: Box, shot: int) -> Sight:
        """What is kept of a face, also where it was missed: the gap may be filled later."""
        return Sight(face, self._patches.keep(frame, face.box if face else box), shot)

    def _merge(self, tick: int) -> None:
        """Two tracks that came to follow one face become the longer one."""
        for track in sorted(self._followed, key=lambda t: len(t.sights)):
            others = [other for other in self._followed if other is not track]
            if any(detector.overlap(track.box, other.box) > 0.5 for other in others):
                self._followed = others
                track.sights.pop(tick, None)

    def _drop_rivals(self, tick: int) -> None:
        """Stop following faces that cannot be chosen any more."""
        if self._point is not None and self._config.face_tracks == 1:
            if tick + 1 < self._ticks(POINT_SECONDS):
                return
            if self._speaker is None:
                self._speaker = self._pointed()
        if self._speaker is not None:
            self._followed = [track for track in self._followed if track is self._speaker]
            return
        widest = max((track.width for track in self._followed), default=0.0)
        wide = [track for track in self._followed if track.width >= RIVAL_WIDTH * widest]
        room = self._config.face_tracks + SPARE_CANDIDATES
        self._followed = sorted(wide, key=lambda track: -track.width)[:room]

    def _pointed(self) -> Track | None:
        best = self._ranked(self._ticks(POINT_SECONDS))
        return best[0][0] if best and best[0][1] == "point" else None

    # --- looking ---

    def _remember(self, tick: int, frame: Frame) -> None:
        self._pending.append(_Seen(tick, frame, self._shots.shot))
        frame_bytes = 1.5 * frame.width * frame.height
        if len(self._pending) * frame_bytes > PENDING_BYTES:
            self._pending.popleft()

    def _look(self, now: _Seen) -> None:
        """Search the whole picture and follow what is new, forwards and backwards."""
        for face in self._faces_of(now.frame):
            taken = [t for t in self._followed if t.last_tick == now.tick]
            if all(detector.overlap(face.box, track.box) < 0.3 for track in taken):
                self._start(face, now)
        seen_now = sum(track.last_tick == now.tick for track in self._followed)
        self._next_look = now.tick + self._ticks(self._pause_seconds(seen_now))
        if seen_now:  # else a later look may find whom this one missed, and follow them back
            self._pending.clear()

    def _pause_seconds(self, seen_now: int) -> float:
        """Seconds until the next look: short after a loss, longer the longer nobody is there."""
        if seen_now >= self._config.face_tracks:
            self._retry_seconds = FIRST_RETRY_SECONDS
            return REFRESH_SECONDS
        if seen_now or not self._deep:
            return LOOK_SECONDS
        pause = self._retry_seconds
        self._retry_seconds = min(2 * pause, LOOK_SECONDS)
        return pause

    def _faces_of(self, frame: Frame) -> list[Detection]:
        """Faces of the whole picture, each confirmed at the scale that suits it."""
        budgets = [look_pixels(frame)]
        if self._deep:
            budgets = [on_pixels(frame), deep_pixels(frame)]
        if len(self._followed) >= self._config.face_tracks:
            budgets = [min(budgets[0], self._rival_pixels(frame))]
        for pixels in budgets:
            proposals = detector.look(frame, pixels)
            faces = [detector.near(frame, face.box, WIDE_MARGIN) for face in proposals]
            sure = [face for face in faces if face is not None and face.score > SURE_SCORE]
            if sure:
                return sure
        return []

    def _rival_pixels(self, frame: Frame) -> float:
        """The budget that finds faces as wide as the widest one known."""
        widest = max(track.width for track in self._followed)
        return frame.width * frame.height * (detector.NEAR_FACE_PIXELS / widest) ** 2

    def _start(self, face: Detection, now: _Seen) -> None:
        """Follow a face from here on, and backwards through the pictures kept."""
        known = [track for track in self._tracks if track.last_tick < now.tick]
        lost = [track for track in known if track.continues_with(face, now.shot)]
        if lost:
            track = max(lost, key=lambda t: (t.last_tick, detector.overlap(t.box, face.box)))
        else:
            track = Track()
            self._tracks.append(track)
            self._shots.begin(now.frame)
        self._follow_back(track, face, now)
        track.add(now.tick, self._sight(now.frame, face, face.box, now.shot))
        if all(track is not other for other in self._followed):
            self._followed.append(track)

    def _follow_back(self, track: Track, face: Detection, now: _Seen) -> None:
        box, missed, sight = face.box, 0, None
        shown = now.frame
        for past in reversed(self._pending):
            if past.tick >= now.tick:
                continue
            known = track.sights.get(past.tick)
            if known is not None and known.detection is not None:
                return
            if sight is None or past.frame is not shown:
                if is_cut(past.frame, shown):
                    return
                found = detector.near(past.frame, box, WIDE_MARGIN)
                sight = self._sight(past.frame, found, box, past.shot)
                shown, box = past.frame, found.box if found else box
            missed = 0 if sight.detection else missed + 1
            if missed > self._gap_ticks:
                return
            track.sights[past.tick] = sight
