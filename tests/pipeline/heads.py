"""Samples in whose frames a head moves: what faces are found in without any video."""

import json

import av
import cv2
import numpy as np
import numpy.typing as npt
import skimage.data

from pipeline import format as shard_format
from pipeline.config import ShardConfig
from tests.pipeline.fabricate import Members, make_members

WIDTH, HEIGHT = 480, 270
Picture = npt.NDArray[np.uint8]


def scene(number: int, tick: int, with_head: bool = True) -> Picture:
    """The astronaut's head, 160x160, before a background; it moves by two pixels a tick."""
    coarse = np.random.default_rng(number).integers(30, 220, (5, 8, 3), dtype=np.uint8)
    picture = np.asarray(
        cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8
    )
    if with_head:
        x, y = 90 + 40 * number + 2 * tick, 40 + tick
        picture[y : y + 160, x : x + 160] = skimage.data.astronaut()[15:175, 145:305]
    return picture


def head_members(
    config: ShardConfig, key: str, number: int, frames: int, with_head: bool = True
) -> Members:
    """A sample of the set, as the pipeline would store it."""
    members = make_members(
        config, key, instance=number, seconds=float(frames / config.fps), face=False
    )
    meta = json.loads(members["json"])
    assert config.short_side is not None
    size = (round(WIDTH * config.short_side / HEIGHT / 2) * 2, config.short_side)
    jpegs = []
    for tick in range(frames):
        small = cv2.resize(scene(number, tick, with_head), size, interpolation=cv2.INTER_AREA)
        jpegs.append(shard_format.encode_jpeg(np.asarray(small, np.uint8), config.jpeg_quality))
    members["frames.mjpeg"], meta["jpeg_sizes"]["frames"] = shard_format.join_jpegs(jpegs)
    meta["frame_size"] = list(size)
    meta["source"] |= {"width": WIDTH, "height": HEIGHT}
    return {**members, "json": shard_format.encode_json(meta)}


def write_video(path: str, number: int, frames: int, fps: int = 10, with_head: bool = True) -> None:
    """The same pictures as a video with a tone."""
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "8", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=44100)
        for tick in range(frames):
            frame = av.VideoFrame.from_ndarray(scene(number, tick, with_head))
            container.mux(video.encode(frame))
        times = np.arange(44100 * frames // fps) / 44100
        tone = (0.3 * np.sin(2 * np.pi * (300 + 200 * number) * times)).astype(np.float32)
        sound = av.AudioFrame.from_ndarray(tone[None], "fltp", "mono")
        sound.sample_rate = 44100
        container.mux(audio.encode(sound))
        container.mux([*video.encode(None), *audio.encode(None)])
