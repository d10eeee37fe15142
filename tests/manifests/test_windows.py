"""Windows of long recordings: wholly inside, one source and group."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from manifests import windows
from manifests.dataset import Report
from manifests.windows import duration_seconds

LONG = Path(__file__).parents[2].parent / "shared/media/video2dataset"


def sound(path: Path, seconds: float) -> None:
    source = f"sine=frequency=440:duration={seconds}"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        source,
        str(path),
    ]
    subprocess.run(command, check=True)


Cut = tuple[str, float | None, float | None]


def cut(
    duration: float | None,
    monkeypatch: pytest.MonkeyPatch,
    hop: float | None = None,
    **row: float,
) -> list[Cut]:
    monkeypatch.setattr(windows, "duration_seconds", lambda path: duration)
    full = {"key": "a", "source_id": "a", "group_id": "g", "uri": "a.mp4", "bytes": 1 << 20, **row}
    cuts = list(windows.cut(Path("/"), [full], 10.0, hop, Report("folder")))
    assert all((r["source_id"], r["group_id"]) == ("a", "g") for r in cuts)
    return [(r["key"], r.get("start_s"), r.get("end_s")) for r in cuts]


def test_a_day_in_half_a_megabyte_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joined transport streams: the clock goes back, which looks like its wrap after 26.5 h."""
    assert cut(95_445.0, monkeypatch, bytes=1 << 19) == [("a", None, None)]


@pytest.mark.parametrize(
    ("duration", "hop", "starts"),
    [
        (122.7, None, [10.0 * k for k in range(12)]),
        (30.0, None, [0.0, 10.0, 20.0]),
        (29.9995, None, [0.0, 10.0, 20.0]),
        (29.99, None, [0.0, 10.0]),
        (21.0, 5.0, [0.0, 5.0, 10.0]),
        (10.0, None, [0.0]),
        (40.0, 25.0, [0.0, 25.0]),
    ],
)
def test_windows_lie_inside(monkeypatch, duration: float, hop: float, starts: list[float]) -> None:
    found = cut(duration, monkeypatch, hop=hop)
    assert found == [(f"a-{round(s * 1000):08d}", s, s + 10) for s in starts]


def test_short_and_unknown_files_stay_one_row(monkeypatch) -> None:
    assert cut(9.5, monkeypatch) == [("a", None, None)]
    assert cut(None, monkeypatch) == [("a", None, None)]


def test_a_rows_own_times_are_the_range(monkeypatch) -> None:
    found = cut(1.0, monkeypatch, start_s=5.0, end_s=27.0)
    assert [start for _, start, _ in found] == [5.0, 15.0]


def test_durations_are_read_and_bad_files_are_none(tmp_path: Path) -> None:
    sound(tmp_path / "-odd name.wav", 2.5)
    assert duration_seconds(str(tmp_path / "-odd name.wav")) == pytest.approx(2.5, abs=0.02)
    (tmp_path / "text.mp4").write_text("hello")
    playlist = f"#EXTM3U\n#EXTINF:9,\n{tmp_path}/-odd name.wav\n"
    (tmp_path / "list.mp4").write_text(playlist)
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("text.mp4", "list.mp4", "pipe.mp4", "absent.mp4"):
        assert duration_seconds(str(tmp_path / name)) is None


def test_links_out_of_the_root_are_not_opened(tree, scan, tmp_path: Path) -> None:
    root = tree({"bad.mp4": b"text"})
    sound(tmp_path / "outside.wav", 3)
    sound(root / "inside.wav", 3)
    (root / "link.wav").symlink_to(tmp_path / "outside.wav")
    rows, report = scan("folder", root, window_seconds=1.0, hop_seconds=0.5)
    keys = sorted(rows)
    assert keys == ["bad_mp4", *(f"inside_wav-{ms:08d}" for ms in range(0, 2001, 500)), "link_wav"]
    assert any("2 files have no credible duration" in note for note in report.notes)


def test_names_by_id_are_judged_by_their_length(tree, scan) -> None:
    csv = "aaaaaaaaaaa,12,15,0.5,0.5\n"
    root = tree({"avspeech_train.csv": csv})
    sound(root / "aaaaaaaaaaa.wav", 3)
    rows, _ = scan("avspeech", root)
    assert rows["avspeech/aaaaaaaaaaa_0012000-0015000"]["pre_trimmed"] is True
    sound(root / "aaaaaaaaaaa.mp3", 30)
    (root / "aaaaaaaaaaa.wav").unlink()
    rows, _ = scan("avspeech", root)
    assert rows["avspeech/aaaaaaaaaaa_0012000-0015000"]["start_s"] == 12


@pytest.mark.skipif(not LONG.is_dir(), reason="the shared media are not here")
def test_real_long_recording(scan) -> None:
    rows, _ = scan("folder", LONG, window_seconds=10.0, hop_seconds=10.0)
    assert len(rows) == 12
    assert len({row["source_id"] for row in rows.values()}) == 1
