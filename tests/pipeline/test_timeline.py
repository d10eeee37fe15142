"""`peek --picture`: each row stands where the sample's clock says, and bad wishes are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests.errors import UsageError
from pipeline import PROFILES
from pipeline.format import Sample, decode, encode_json
from pipeline.peek import peek
from pipeline.timeline import COLUMNS, TITLE_CHARACTERS, draw, save
from tests.pipeline.fabricate import fabricate, make_members

FPS = 10


def numbered(frames: int, **meta: Any) -> Sample:
    """A sample without faces whose frame k is of the grey k."""
    sample = decode(make_members(PROFILES["loc"], "demo/a", seconds=frames / FPS))
    sample.pictures["frames"] = [np.full((4, 6, 3), k, np.uint8) for k in range(frames)]
    sample.meta.update({"words": [], **meta})
    return sample


@pytest.mark.parametrize("frames", [1, 7, 10, 11, 43, 100])
def test_the_picture_in_a_column_is_on_screen_in_its_middle(frames: int) -> None:
    """By the format, frame k is that of the interval from k / fps to (k + 1) / fps after t0."""
    pictures = draw(numbered(frames)).axes[0].images
    assert len(pictures) == min(frames, COLUMNS)
    for picture in pictures:
        left, right = picture.get_extent()[:2]
        k = picture.get_array()[0, 0, 0]
        assert k / FPS - 1e-9 <= (left + right) / 2 <= (k + 1) / FPS + 1e-9


def test_columns_fill_the_clip_and_pictures_keep_their_shape() -> None:
    figure = draw(numbered(40))
    axes = figure.axes[0]
    box = axes.get_window_extent()
    for picture in axes.images:
        left, right, bottom, top = picture.get_extent()
        shape = (right - left) / 4.0 * box.width / ((bottom - top) * box.height)
        assert shape == pytest.approx(6 / 4, rel=0.05)
    assert axes.get_xlim() == (0, 4.0)


def test_the_mel_covers_the_clip_low_bands_below() -> None:
    sample = numbered(40)
    (mel,) = draw(sample).axes[-1].images
    assert mel.get_extent() == [0, 4.0, 0, 1]
    assert mel.origin == "lower"
    assert sample.mel is not None
    np.testing.assert_array_equal(mel.get_array(), sample.mel.astype(np.float32))


def test_words_stand_where_they_are_said() -> None:
    """Their times count from the window's start, half a second before t0 here."""
    said = [{"w": "$a_", "start_s": 1.0, "end_s": 1.5}, {"w": "b", "start_s": 2.0, "end_s": 2.2}]
    sample = numbered(40, words=said)
    sample.meta["window_start"] = sample.meta["t0"] - 0.5
    texts = [(text.get_text(), text.get_position()[0]) for text in draw(sample).axes[-1].texts]
    assert texts == [("$a_", pytest.approx(0.75)), ("b", pytest.approx(1.6))]


def test_landmarks_lie_on_their_picture() -> None:
    members = make_members(PROFILES["glcm"], "demo/a")
    sample = decode(members)
    sample.landmarks["landmarks"][:] = (320, 120)  # of 640 x 480: in the middle, a quarter down
    axes = draw(sample).axes[0]
    assert len(axes.lines) == len(axes.images)
    for line, picture in zip(axes.lines, axes.images, strict=True):
        left, right = picture.get_extent()[:2]
        np.testing.assert_allclose(line.get_xdata(), (left + right) / 2)
        np.testing.assert_allclose(line.get_ydata(), 0.25)


def test_landmarks_beyond_the_picture_are_not_drawn() -> None:
    """A face at the edge: its jaw must not lie on the next picture."""
    sample = decode(make_members(PROFILES["glcm"], "demo/a"))
    sample.landmarks["landmarks"][:, :34] = (650, 120)
    sample.landmarks["landmarks"][:, 34:] = (320, 120)
    sample.landmarks["landmarks"][:, 0] = (320, -1)
    axes = draw(sample).axes[0]
    assert [len(line.get_xdata()) for line in axes.lines] == [34] * len(axes.images)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_picture_of_every_profile(tmp_path: Path, profile: str) -> None:
    out = fabricate(tmp_path / "out", PROFILES[profile], seconds=1.0)
    (line,) = peek(out, picture=tmp_path / "a.png")
    assert line.startswith(f"{tmp_path / 'a.png'}: demo/clip000, ")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 1000


def test_a_clip_without_a_face_has_no_row_of_faces() -> None:
    profile = PROFILES["glcm"]
    with_face, without = (
        draw(decode(make_members(profile, "a", face=face))) for face in (True, False)
    )
    assert [axes.get_ylabel() for axes in with_face.axes] == ["frames", "face", "lips", "", ""]
    assert [axes.get_ylabel() for axes in without.axes] == ["frames", "", ""]


def test_a_frame_without_a_face_stays_empty() -> None:
    sample = decode(make_members(PROFILES["glcm"], "a"))
    gone = range(1, 20, 4)
    lips = enumerate(sample.pictures["lip"])
    sample.pictures["lip"] = [None if k in gone else lip for k, lip in lips]
    row = draw(sample).axes[2]
    assert row.get_ylabel() == "lips"
    assert len(row.images) == len([k for k in range(1, 20, 2) if k not in gone])


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", PROFILES["glcm"], seconds=1.0)
    for ending in ("doc", "pgf", "raw"):
        with pytest.raises(UsageError, match=rf"a\.{ending}: expected a name that ends in .*\.png"):
            peek(out, picture=tmp_path / f"a.{ending}")
    with pytest.raises(UsageError, match="2 keys are named: name one"):
        peek(out, ["demo/clip000", "demo/clip001"], picture=tmp_path / "a.png")
    with pytest.raises(UsageError, match="lies in the set"):
        peek(out, picture=out / "a.png")
    with pytest.raises(UsageError, match="two calls"):
        peek(out, picture=tmp_path / "a.png", html=tmp_path / "a.html")
    assert not list(tmp_path.glob("a.*"))


def test_a_title_with_a_dollar_is_text(tmp_path: Path) -> None:
    members = make_members(PROFILES["glcm"], "demo/a")
    meta = {**json.loads(members["json"]), "transcript": "$x^$ \x1b[31m"}
    sample = decode({**members, "json": encode_json(meta)})
    sample.meta["words"] = []
    figure = draw(sample)
    figure.savefig(tmp_path / "a.png")
    assert "$x^$" in figure.axes[0].get_title(loc="left")
    assert "\x1b" not in figure.axes[0].get_title(loc="left")


def test_a_long_title_ends_in_an_ellipsis() -> None:
    title = draw(numbered(10, transcript="word " * 60)).axes[0].get_title(loc="left")
    assert title.startswith("demo/a · ")
    assert title.endswith("…")
    assert len(title) == TITLE_CHARACTERS


def test_characters_without_a_font_are_told_once_and_warn_nobody(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """U+1242B, a cuneiform sign, is in no font that is asked for."""
    line = save(numbered(10, label_names=["\U0001242b\U0001242c"]), tmp_path / "a.png")
    assert "2 characters are boxes, as no font here has them" in line
    assert not [one for one in recwarn if "Glyph" in str(one.message)]
    assert "boxes" not in save(numbered(10, label_names=["Привет"]), tmp_path / "b.png")


def test_letters_of_a_pdf_are_of_no_type_3_font(tmp_path: Path) -> None:
    save(numbered(10), tmp_path / "a.pdf")
    assert b"/Type3" not in (tmp_path / "a.pdf").read_bytes()
