"""The files that are measured: made here, so that anyone can, and real ones where there are any.

What is made looks like what the data sets hold: noise, motion and scene changes; x264 at its
default effort with B-frames; AAC. They are made once and kept beside the results.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from manifests.render import encode
from manifests.render.encode import Encoding
from manifests.render.head import Head, Look
from manifests.render.mouth import Image
from manifests.render.voice import speak

REAL_MEDIA = Path(__file__).resolve().parents[1].parent / "shared" / "media"
VERSION = 1
"""Part of the folder name: other recipes, other files."""
SECONDS = 10
X264 = (("preset", "medium"), ("bf", 3))
SCENES = (
    "mandelbrot=size=340x256:rate=30:end_scale=0.05:end_pts=200",
    "testsrc2=size=340x256:rate=30",
    "gradients=size=340x256:rate=30:nb_colors=6:speed=0.05:seed=3",
    "mandelbrot=size=340x256:rate=30:start_x=-0.74:start_y=0.13:start_scale=0.2:end_scale=0.001",
)
"""What the Kinetics-like clip shows, each for the same time."""
FACE_ZOOM = {720: 2.6, 1080: 3.9}
"""Height of a talking head's picture -> pixels per pixel of the portrait: a face of 0.32 of it."""

GRAIN = 4.0
"""Levels of camera noise (standard deviation): 1.6 Mb/s at 720p, as such videos have."""


@dataclass(frozen=True)
class Media:
    """One file to measure on."""

    name: str
    """In the table."""
    kind: str
    """`kinetics`, `head720`, `head1080` or `other`: which goals hold for it."""
    path: Path
    made: bool
    """Whether it was made here; the goals are checked on made files and on real ones alike."""


REAL = {
    "torchvision/test/assets/videos/WUzgd7C1pWA.mp4": "kinetics",
    "liveportrait/assets/examples/source/s18.mp4": "head720",
    "latentsync/assets/demo1_video.mp4": "head1080",
    "sadtalker/examples/ref_video/WDA_AlexandriaOcasioCortez_000.mp4": "other",
    "video-retalking/examples/face/1.mp4": "other",
}
"""Real clips with sound below `REAL_MEDIA`."""
KINETICS_WITHOUT_SOUND = "mmaction2/tests/data/test.mp4"
"""A true Kinetics clip that lost its sound; it is given that of another one."""
HAMILTON = "face_recognition/examples/short_hamilton_clip.mp4"
HAMILTON_STRETCH = (3.7, 7.85)
"""Seconds of one speaker, played forward, backward and forward again."""


def made_media(folder: Path) -> list[Media]:
    """The files that are made here; those already in the folder are kept."""
    return [
        kinetics_like(folder),
        Media("head 1280x720@25", "head720", _head(folder, 1280, 720, 25), True),
        Media("head 1920x1080@30", "head1080", _head(folder, 1920, 1080, 30), True),
    ]


def kinetics_like(folder: Path) -> Media:
    """The first of them, which is made in seconds."""
    return Media("kinetics-like 340x256@30", "kinetics", _kinetics(folder), True)


def real_media(folder: Path) -> list[Media]:
    """Real clips, and clips derived from them; none where the media are not there."""
    if not REAL_MEDIA.is_dir():
        return []
    found = [
        Media(Path(uri).name, kind, REAL_MEDIA / uri, False)
        for uri, kind in REAL.items()
        if (REAL_MEDIA / uri).is_file()
    ]
    if (REAL_MEDIA / KINETICS_WITHOUT_SOUND).is_file():
        found.insert(0, Media("mmaction2 test.mp4 + sound", "kinetics", _with_sound(folder), False))
    if (REAL_MEDIA / HAMILTON).is_file():
        found += [
            Media("hamilton at 720p@25", "head720", _hamilton(folder, 1280, 720, 25), False),
            Media("hamilton at 1080p@30", "head1080", _hamilton(folder, 1920, 1080, 30), False),
        ]
    return found


def _kinetics(folder: Path) -> Path:
    """Scenes with noise, about 1 Mb/s, stereo sound."""
    path = folder / "kinetics.mp4"
    if path.exists():
        return path
    each = SECONDS / len(SCENES)
    inputs = [word for scene in SCENES for word in ("-f", "lavfi", "-t", f"{each}", "-i", scene)]
    inputs += ["-f", "lavfi", "-i", f"anoisesrc=r=44100:d={SECONDS}:c=pink:a=0.3"]
    joined = "".join(f"[{n}:v]format=yuv420p,setsar=1[v{n}];" for n in range(len(SCENES)))
    labels = "".join(f"[v{n}]" for n in range(len(SCENES)))
    graph = f"{joined}{labels}concat=n={len(SCENES)},noise=alls=6:allf=t[v]"
    codecs = {"c:v": "libx264", "b:v": "1M", **dict(X264), "c:a": "aac", "ac": 2}
    maps = ["-filter_complex", graph, "-map", "[v]", "-map", f"{len(SCENES)}:a"]
    return _run(path, [*inputs, *maps, *encode.arguments(codecs)])


def _head(folder: Path, width: int, height: int, fps: int) -> Path:
    """The demo's talking head, with a little noise in the picture."""
    path = folder / f"head{height}.mp4"
    if path.exists():
        return path
    speech = speak(1, SECONDS, 120.0)
    head = Head(Look(120.0), (width, height), FACE_ZOOM[height], 1)
    encoding = Encoding(".mp4", fps=Fraction(fps), extra=(*X264, ("crf", 23)))
    frames = head.render(speech, fps, SECONDS * fps)
    random = np.random.default_rng(0)
    grain = random.normal(0, GRAIN, (height + 64, width + 64, 1)).round().astype(np.int16)

    def grainy(image: Image) -> Image:
        y, x = random.integers(0, 64, 2)
        noisy = image + grain[y : y + height, x : x + width]
        return np.asarray(np.clip(noisy, 0, 255), np.uint8)

    return encode.encode(path, encoding, (grainy(f.image) for f in frames), speech.samples, 44100)


def _with_sound(folder: Path) -> Path:
    """The Kinetics clip's own pictures with the sound of another real clip."""
    path = folder / "kinetics-real.mp4"
    sound = REAL_MEDIA / next(iter(REAL))
    streams = ["-map", "0:v", "-map", "1:a", "-t", str(SECONDS), "-c", "copy"]
    source = str(REAL_MEDIA / KINETICS_WITHOUT_SOUND)
    return path if path.exists() else _run(path, ["-i", source, "-i", str(sound), *streams])


def _hamilton(folder: Path, width: int, height: int, fps: int) -> Path:
    """A real speaker on a stage, enlarged, so that the picture has the size of today's videos."""
    path = folder / f"hamilton{height}.mp4"
    start, end = HAMILTON_STRETCH
    pictures = (
        f"[0:v]trim={start}:{end},setpts=PTS-STARTPTS,split=3[a][b][c];[b]reverse[r];"
        f"[a][r][c]concat=n=3,fps={fps},scale={width}:{height}:flags=lanczos,noise=alls=4:allf=t[v]"
    )
    codecs = {"c:v": "libx264", "crf": 23, **dict(X264), "c:a": "aac", "b:a": "128k", "t": SECONDS}
    maps = ["-filter_complex", pictures, "-map", "[v]", "-map", "0:a"]
    command = ["-i", str(REAL_MEDIA / HAMILTON), *maps, *encode.arguments(codecs)]
    return path if path.exists() else _run(path, command)


def _run(path: Path, command: list[str]) -> Path:
    """One ffmpeg call; the file appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")
    encode.run([*command, str(part)])
    part.replace(path)
    return path
