"""The rational grid: closed-form cases of architecture §4."""

from fractions import Fraction as F

import pytest

from pipeline.clock import Extent, Window, grid_for
from pipeline.errors import ClipError, Reason

MS = F(1, 1000)


def lay(window, fps, video=None, audio=None, times=()):
    return grid_for(
        window, F(fps), video=video, audio=audio, picture_times=times, time_base=F(1, 90000)
    )


def pictures(start, count, fps):
    return [F(start) + F(i) / F(fps) for i in range(count)]


@pytest.mark.parametrize("fps", [F(10), F(16), F(25), F(30)])
@pytest.mark.parametrize("source_fps", [15, F(24000, 1001), 24, 25, F(30000, 1001), 30, 50, 60])
def test_whole_seconds_give_exactly_fps_intervals_a_second(fps, source_fps):
    count = round(6 * source_fps)
    end = count / F(source_fps)
    grid = lay(
        Window(F(0), None, False),
        fps,
        Extent(F(0), end),
        Extent(F(0), F(7)),
        pictures(0, count, source_fps),
    )
    assert grid.frames == round(6 * fps)


def test_25_to_25_gives_every_picture_once():
    times = pictures(0, 75, 25)
    extent = Extent(F(0), F(3))
    grid = lay(Window(F(0), None, True), 25, extent, extent, times)
    deadlines = grid.deadlines(F(1, 12800))
    shown = [max(t for t in times if t <= d * F(1, 12800)) for d in deadlines]
    assert shown == times


def test_30_to_10_takes_the_middle_of_each_three():
    times = pictures(0, 30, 30)
    extent = Extent(F(0), F(1))
    grid = lay(Window(F(0), None, False), 10, extent, extent, times)
    deadlines = grid.deadlines(F(1, 90000))
    shown = [max(i for i, t in enumerate(times) if t <= d * F(1, 90000)) for d in deadlines]
    assert shown == list(range(1, 30, 3))


def test_an_unanchored_grid_starts_at_the_first_picture_after_both_streams_began():
    times = pictures(F(1, 2), 100, 25)
    late_sound = Extent(F(83, 100), F(9))
    grid = lay(Window(F(0), None, False), 10, Extent(times[0], F(4)), late_sound, times)
    assert grid.t0 == min(t for t in times if t >= F(83, 100))


def test_an_unanchored_grid_ends_with_the_earlier_stream_and_the_window():
    times = pictures(0, 250, 25)
    video = Extent(F(0), F(10))
    assert lay(Window(F(0), None, False), 10, video, Extent(F(0), F(6)), times).frames == 60
    assert lay(Window(F(0), F(4), False), 10, video, Extent(F(0), F(6)), times).frames == 40


def test_an_anchored_grid_is_the_window_itself():
    times = pictures(F(1, 2), 25, 25)
    video = Extent(F(1, 2), F(3, 2))
    grid = lay(Window(F(0), F(10), True), 10, video, None, times)
    assert (grid.t0, grid.frames) == (0, 100)


def test_an_open_anchored_window_ends_with_the_video():
    video = Extent(F(0), F(3))
    grid = lay(Window(F(0), None, True), 25, video, Extent(F(0), F(9)), pictures(0, 75, 25))
    assert grid.frames == 75


def test_rounding_of_the_container_does_not_cost_the_last_interval():
    video = Extent(F(0), F(2999, 1000))  # Matroska writes 2.9995 s as 2999 ms
    grid = lay(Window(F(0), None, True), 25, video, None, pictures(0, 75, 25))
    assert grid.frames == 74
    near = Extent(F(0), 3 - F(1, 25000))
    assert lay(Window(F(0), None, True), 25, near, None, pictures(0, 75, 25)).frames == 75


def test_no_picture_after_the_sound_begins_is_too_short():
    times = pictures(0, 10, 25)
    with pytest.raises(ClipError) as error:
        lay(Window(F(0), None, False), 10, Extent(F(0), F(2, 5)), Extent(F(5), F(9)), times)
    assert error.value.reason == Reason.TOO_SHORT
