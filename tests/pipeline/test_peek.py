"""`pipeline.peek` and its cards: what a page holds, in step, escaped, bounded, from one file."""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from manifests.errors import UsageError
from pipeline import PROFILES
from pipeline.cards import CardLimits, make_card
from pipeline.drawing import band_marks, mel_png, runs, spans, time_marks
from pipeline.format import encode_json
from pipeline.listen import from_mel, page_sound
from pipeline.mel import log_mel, margin_samples
from pipeline.outputs import Place
from pipeline.peek import peek
from tests.pipeline.fabricate import fabricate, make_members, write_set

GLCM = PROFILES["glcm"]
PLACE = Place("a", "train-000000", 0, 1)


def silent(meta: dict[str, Any]) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    """A stand-in for the source's sound that costs no time."""
    return np.zeros((16000 * 2, 1), np.float32), 16000


def changed(members: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    return {**members, "json": encode_json({**json.loads(members["json"]), **changes})}


def player_of(page: str) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json" class="player">(.*?)</script>', page)
    return [json.loads(text) for text in found]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_page_of_every_profile(tmp_path: Path, profile: str) -> None:
    out = fabricate(tmp_path / "out", PROFILES[profile], seconds=1.0)
    lines = peek(out, html=tmp_path / "page.html", sound_of=silent)
    page = (tmp_path / "page.html").read_text()
    assert "6 samples" in lines[-1]
    assert page.count('<article class="card"') == 6
    assert all(player["sound"] for player in player_of(page))


def test_the_page_fetches_nothing_and_runs_only_its_own_script(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    peek(out, html=tmp_path / "page.html", sound_of=silent)
    page = (tmp_path / "page.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "https://" not in page


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    meta = {
        "transcript": evil,
        "label_names": [evil],
        "words": [{"w": evil, "start_s": 0.0, "end_s": 1.0}],
        "source": {**json.loads(make_members(GLCM, "a")["json"])["source"], "uri": evil},
    }
    out = write_set(tmp_path / "out", GLCM, [[changed(make_members(GLCM, "a"), **meta)]])
    peek(out, html=tmp_path / "page.html", sound_of=silent)
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert html.escape(evil) in page


def test_pictures_go_in_as_they_are_stored() -> None:
    members = make_members(GLCM, "a")
    card = make_card(members, PLACE, CardLimits(), silent)
    assert base64.b64decode(card.player["pictures"]["frames"]["blob"]) == members["frames.mjpeg"]
    assert card.crops == ["face", "lip"]


def test_boxes_and_landmarks_are_in_pixels_of_the_stored_frames() -> None:
    card = make_card(make_members(GLCM, "a"), PLACE, CardLimits(), silent)
    scale = np.array([170 / 640, 128 / 480])
    track = card.player["tracks"][0]
    corners = np.array([[230, 110], [370, 290]]) * scale
    assert track["boxes"][0] == pytest.approx(corners.ravel(), abs=0.01)
    landmarks = np.frombuffer(base64.b64decode(track["landmarks"]), "<i2").reshape(-1, 68, 2)
    assert landmarks[0, 0] / 16 == pytest.approx(np.array([360, 200]) * scale, abs=1 / 16)


def test_a_clip_without_a_face_says_so() -> None:
    card = make_card(make_members(GLCM, "a", face=False), PLACE, CardLimits(), silent)
    assert "No face was found." in card.note
    assert (card.crops, card.player["tracks"]) == ([], [])


def test_long_and_heavy_clips_are_cut_with_a_note() -> None:
    members = make_members(GLCM, "a", seconds=4)
    short = make_card(members, PLACE, CardLimits(seconds=1.5), silent)
    assert (short.frames, short.seconds) == (15, 1.5)
    assert "first 15 of 40 frames" in short.note
    assert len(short.player["pts"]) == len(short.player["tracks"][0]["states"]) == 15
    light = make_card(members, PLACE, CardLimits(picture_bytes=40_000), silent)
    blobs = [base64.b64decode(stored["blob"]) for stored in light.player["pictures"].values()]
    assert sum(map(len, blobs)) <= 40_000


def test_word_times_count_from_the_window_and_are_drawn_from_t0() -> None:
    members = changed(make_members(GLCM, "a"), t0=0.7, window_start=0.5)
    words = make_card(members, PLACE, CardLimits(), silent).words
    assert words[0].text == "bin"
    assert words[0].start_seconds == pytest.approx(0)
    assert words[1].left == pytest.approx(100 * 0.4 / 2)


def test_held_pictures_and_padded_sound_are_drawn() -> None:
    members = changed(make_members(GLCM, "a"), held=[0], padded=[[1.5, 2.0]])
    missing = make_card(members, PLACE, CardLimits(), silent).missing
    assert [(span.text, span.left) for span in missing] == [("picture held", 0), ("no sound", 75)]


def test_padding_shorter_than_a_mel_slice_is_a_number_and_no_lane() -> None:
    members = changed(make_members(GLCM, "a"), padded=[[1.995374, 2.0]])
    card = make_card(members, PLACE, CardLimits(), silent)
    assert card.missing == []
    assert dict(card.facts)["held, padded"] == "0 frames, 5 ms of sound"


def test_a_damaged_sample_is_a_line_and_the_others_are_shown(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM, shards=1)
    tar = out / "shards/train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[520:524] = b"\xff\xff\xff\xff"
    tar.write_bytes(data)
    assert "cannot be read" in peek(out, html=tmp_path / "page.html", sound_of=silent)[0]
    assert (tmp_path / "page.html").read_text().count('<article class="card"') == 2
    assert any("cannot be read" in line for line in peek(out))


# --- which samples, and text ------------------------------------------------------------------


def test_samples_are_found_by_key_with_and_without_the_tables(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    with_table = peek(out, ["demo/clip004"])
    (out / "samples.parquet").unlink()
    assert peek(out, ["demo/clip004"]) == with_table
    assert with_table[0].startswith("demo/clip004  bell  demo:train")


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    with pytest.raises(UsageError, match=r"demo/bad0000: not among.*pipeline errors"):
        peek(out, ["demo/bad0000"])


def test_samples_come_from_all_over_the_set(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM, shards=4)
    text = "\n".join(peek(out, count=4))
    assert all(f"train-00000{number}.tar" in text for number in range(4))


def test_a_set_without_samples_says_so(tmp_path: Path) -> None:
    out = write_set(tmp_path / "out", GLCM, [[]])
    with pytest.raises(UsageError, match="no committed sample"):
        peek(out)


def test_nothing_from_a_sample_reaches_the_terminal_raw(tmp_path: Path) -> None:
    members = changed(make_members(GLCM, "a"), transcript="\x1b[31mred")
    out = write_set(tmp_path / "out", GLCM, [[members]])
    assert "\x1b" not in "".join(peek(out))


# --- sound ------------------------------------------------------------------------------------


def test_the_stored_waveform_is_played_before_anything_else() -> None:
    members = make_members(PROFILES["tempssl"], "a")
    card = make_card(members, PLACE, CardLimits(), silent)
    assert card.sound == "the stored waveform"
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(card.player["sound"])))
    assert (rate, len(wave)) == (24000, 48000)


def test_a_mel_at_its_floor_has_no_sound() -> None:
    from pipeline.format import decode, encode_npy

    members = make_members(GLCM, "a")
    floor = np.full((80, 60), np.log(1e-5), np.float16)
    sample = decode({**members, "mel.npy": encode_npy(floor)})
    assert page_sound(sample, 2.0, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("hop", [735, 294])
def test_sound_from_the_mel_is_in_step_with_it(hop: int) -> None:
    """A click train through mel and back: every click within a quarter of a slice."""
    rate, slices = 22050, 90 * 735 // hop
    wave = np.zeros(slices * hop, np.float32)
    clicks = np.arange(4000, len(wave) - 4000, 11025)
    for click in clicks:
        wave[click : click + 300] = np.sin(np.arange(300) * 0.4) * np.hanning(300)
    mel = log_mel(np.pad(wave, margin_samples(hop)), rate, hop)
    made = from_mel(mel, rate, hop)
    assert len(made) == len(wave)
    for click in clicks:
        around = np.abs(made[click - 2000 : click + 2300])
        centre = np.average(np.arange(-2000, 2300), weights=around**2)
        assert abs(centre - 150) < hop / 4


# --- drawing ----------------------------------------------------------------------------------


def test_the_mel_picture_has_low_bands_at_the_bottom() -> None:
    import cv2

    mel = np.full((80, 30), -10, np.float32)
    mel[:10] = 0
    picture = cv2.imdecode(np.frombuffer(mel_png(mel), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.shape == (80, 30)
    assert picture[75].mean() > 200 > 50 > picture[5].mean()


def test_marks_along_the_axes() -> None:
    assert [mark.text for mark in time_marks(3.0)] == [
        "0 s",
        "0.5 s",
        "1 s",
        "1.5 s",
        "2 s",
        "2.5 s",
    ]
    bands = band_marks(22050)
    assert [mark.text for mark in bands] == ["250 Hz", "1 kHz", "4 kHz"]
    assert sorted(mark.at for mark in bands) == [mark.at for mark in bands]


def test_spans_are_clipped_to_the_axis() -> None:
    drawn = spans([(-1, 1, "a"), (3, 9, "b"), (5, 6, "c")], 4.0)
    assert [(span.text, span.left, span.width) for span in drawn] == [("a", 0, 25), ("b", 75, 25)]
    states = runs(["detected", "detected", "none"], 10, 0.3)
    assert [(span.text, round(span.width, 6)) for span in states] == [
        ("detected", 66.666667),
        ("none", 33.333333),
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [("samples.parquet", "a name that ends in .html"), ("report.html", "a place of the set's own"),
     ("shards/a.html", "a place of the set's own"), ("../page.txt", "a name that ends in .html")],
)  # fmt: skip
def test_a_page_takes_the_place_of_nothing_else(tmp_path: Path, name: str, said: str) -> None:
    out = fabricate(tmp_path / "out", GLCM, seconds=1.0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=said):
        peek(out, html=out / name, sound_of=silent)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    peek(out, html=out / "peek.html", sound_of=silent)
    assert (out / "peek.html").is_file()


def test_text_about_sound_alone_does_not_speak_of_pictures(tmp_path: Path) -> None:
    members = make_members(PROFILES["sound"], "a")
    meta = json.loads(members["json"])
    meta["source"] |= {"width": None, "height": None}
    meta["quality"] |= {"luma": None, "static": None}
    out = write_set(tmp_path / "out", PROFILES["sound"], [[changed(members, **meta)]])
    text = "\n".join(peek(out))
    assert "None" not in text
    assert "audio_dbfs" in text
