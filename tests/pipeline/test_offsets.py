"""`pipeline offsets`: flashes and beeps, and a talking mouth, at known shifts; nothing to tell."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import PROFILES, format as shard_format
from pipeline.offsets import estimate, offsets
from pipeline.view import view_of
from tests.pipeline.fabricate import Members, make_members, write_set

GLCM, LIPS = PROFILES["glcm"], PROFILES["lips"]
SECONDS = 10


def with_facts(members: Members, key: str, jpegs: list[bytes], mel: np.ndarray) -> Members:
    meta = json.loads(members["json"])
    blob, meta["jpeg_sizes"]["frames"] = shard_format.join_jpegs(jpegs)
    mel_npy = shard_format.encode_npy(mel.astype(np.float16))
    return {**members, "json": shard_format.encode_json({**meta, "key": key}),
            "frames.mjpeg": blob, "mel.npy": mel_npy}  # fmt: skip


def flash_and_beep(key: str, late_seconds: float, seed: int = 0) -> Members:
    """Eight flashes of 0.2 s at irregular times in 10 s, each with a beep that comes later."""
    rng = np.random.default_rng(seed)
    starts = np.arange(8) * 1.1 + 1 + rng.uniform(0, 0.5, 8)
    frames = SECONDS * 10
    bright = [any(s <= (k + 0.5) / 10 < s + 0.2 for s in starts) for k in range(frames)]
    jpegs = [
        shard_format.encode_jpeg(np.full((48, 64, 3), 220 if on else 40, np.uint8), 90)
        for on in bright
    ]
    times = (np.arange(3 * frames) + 0.5) / 30 - late_seconds
    beeps = np.array([any(s <= time < s + 0.2 for s in starts) for time in times])
    mel = np.where(beeps, 0.0, -8.0) + rng.normal(0, 0.2, (80, 3 * frames))
    return with_facts(make_members(GLCM, key, seconds=SECONDS, face=False), key, jpegs, mel)


@pytest.mark.parametrize("late", [0.0, 0.25, -0.4, 0.8])
def test_flash_and_beep(late):
    members = flash_and_beep("a", late)
    found, way = estimate(json.loads(members["json"]), members)
    assert way == "motion"
    assert found is not None
    assert found.seconds == pytest.approx(late, abs=0.05)
    assert found.peak_ratio > 1.5


@pytest.mark.parametrize("late", [0.0, 0.2, -0.36])
def test_a_mouth_that_opens_with_the_voice(late):
    members = make_members(LIPS, "a", seconds=6)
    rng = np.random.default_rng(1)
    knots = rng.uniform(0, 1, 36)
    frames = 6 * 25

    def said(seconds: np.ndarray) -> np.ndarray:
        return np.asarray(np.interp(seconds, np.arange(36) * 0.17, knots))

    points = np.array(shard_format.decode_npy(members["landmarks.npy"]))
    points[:, 27], points[:, 8] = (100, 50), (100, 150)
    points[:, 62] = (100, 110)
    points[:, 66, 0], points[:, 66, 1] = 100, 110 + 10 * said((np.arange(frames) + 0.5) / 25)
    points[7] = np.nan  # a picture without a face
    mel = np.zeros((80, 3 * frames)) - 6 + 4 * said((np.arange(3 * frames) + 0.5) / 75 - late)
    members["landmarks.npy"] = shard_format.encode_npy(points.astype(np.float32))
    members["mel.npy"] = shard_format.encode_npy(mel.astype(np.float16))
    found, way = estimate(json.loads(members["json"]), members)
    assert way == "mouth"
    assert found is not None
    assert found.seconds == pytest.approx(late, abs=0.03)
    assert found.correlation > 0.8


def test_columns_for_where_and_null_where_nothing_is_told(tmp_path):
    still = flash_and_beep("still", 0.0)
    one = json.loads(still["json"])["jpeg_sizes"]["frames"][0]
    still = with_facts(
        still, "still", [still["frames.mjpeg"][:one]] * 100, np.full((80, 300), -11.5)
    )
    made = [flash_and_beep("late", 0.5), flash_and_beep("right", 0.0, seed=1), still]
    out = write_set(tmp_path / "out", GLCM, [made])
    lines = offsets(out)
    assert "3 clips: 2 by motion, 1 by nothing to compare" in lines[0]
    table = pq.read_table(out / "quality/av_offsets.parquet").to_pylist()
    rows = {row["key"]: row for row in table}
    assert rows["still"]["av_offset_seconds"] is rows["still"]["av_offset_from"] is None
    view = view_of(out, "abs(av_offset_seconds) > 0.2 and av_offset_peak_ratio > 1.5")
    assert view.sizes[0].passing.clips == 1
