"""The shard format: what a sample is, as bytes and back. The one file shared with the trainer.

A sample is a group of adjacent members of a USTAR tar with one base name (architecture §5):

    BASE.json            facts; see `Sample.meta`
    BASE.frames.mjpeg    T JPEGs, concatenated; their sizes stand in the JSON
    BASE.mel.npy         float16 (80, 3 T), natural log of mel power
    BASE.audio.flac      16-bit waveform, T / fps seconds
    BASE.landmarks.npy   float32 (T, 68, 2) source pixels, NaN where there is none; (0, 68, 2)
                         without a track; `landmarks2` for a second track
    BASE.face.mjpeg      crops, one JPEG a frame with a face; `face2`, `lip`, `lip2` likewise

Only numpy and a JPEG codec are needed to read it; FLAC members ask for soundfile.
"""

import hashlib
import io
import json
import math
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import simplejpeg

SCHEMA_VERSION = 1
FIELD_SCHEMA = 1
"""Of fields that are added to a set."""
FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
MEL_SLICES_PER_FRAME = 3
N_MELS = 80
N_LANDMARKS = 68
MAX_KEY_CHARACTERS = 80
MAX_BASE_CHARACTERS = 85  # with the longest extension a USTAR name still fits its 100 bytes
MAX_MEMBER_BYTES = 1 << 29
PCM_FULL_SCALE = 1 << 15
PICTURE_SUFFIX = ".mjpeg"

Picture = npt.NDArray[np.uint8]


class FormatError(ValueError):
    """A sample does not follow the format; the message names the member and both values."""


@dataclass(frozen=True)
class Sample:
    """A decoded sample. Its repr shows shapes, not pixels."""

    meta: dict[str, Any]
    """The JSON member: key, labels, clock, source, faces, quality."""
    pictures: dict[str, list[Picture | None]] = field(default_factory=dict)
    """`frames`, `face`, `lip`, `face2`, `lip2`: T pictures (H, W, 3) RGB; None where no face is.
    The list is empty for a track the clip does not have."""
    mel: npt.NDArray[np.float16] | None = None
    """(80, 3 T) natural log-mel power."""
    waveform: npt.NDArray[np.float32] | None = None
    """(samples, channels) in -1 .. 1."""
    landmarks: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """`landmarks`, `landmarks2`: (T, 68, 2) or (0, 68, 2), displayed source pixels."""

    def __repr__(self) -> str:
        """Key and shapes."""
        shapes: dict[str, Any] = {name: len(items) for name, items in self.pictures.items()}
        shapes |= {name: array.shape for name, array in self.landmarks.items()}
        if self.mel is not None:
            shapes["mel"] = self.mel.shape
        if self.waveform is not None:
            shapes["waveform"] = self.waveform.shape
        return f"Sample({self.meta['key']!r}, {shapes})"


# --- names ------------------------------------------------------------------------------------


def base_name(key: str) -> str:
    """The members' base name for a manifest key; readers use the JSON's `key`.

    WebDataset splits at the first dot and knows no folders, so `/` becomes `--`. A key that is
    long, or could be mistaken for another one (`a-/b` and `a/-b` would both be `a---b`), gets a
    hash of itself (never of other rows).
    """
    name = key.replace("/", "--")
    plain = "--" not in key and "-/" not in key
    if plain and len(key) <= MAX_KEY_CHARACTERS and len(name) <= MAX_BASE_CHARACTERS:
        return name
    slug = re.sub(r"-{2,}", "-", name)[: MAX_KEY_CHARACTERS - 9]
    return f"{slug}-{hashlib.sha1(key.encode()).hexdigest()[:8]}"


# --- encoding ---------------------------------------------------------------------------------


def encode_jpeg(picture: Picture, quality: int) -> bytes:
    """One RGB picture (H, W, 3) as JPEG with 4:2:0 chroma."""
    return bytes(
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(picture), quality=quality, colorspace="RGB", colorsubsampling="420"
        )
    )


def join_jpegs(jpegs: Sequence[bytes | None]) -> tuple[bytes, list[int]]:
    """The blob and the size of each picture, 0 where there is none."""
    return b"".join(jpeg for jpeg in jpegs if jpeg), [len(jpeg or b"") for jpeg in jpegs]


def encode_json(meta: Mapping[str, Any]) -> bytes:
    """Compact JSON; NaN and infinity are refused, because JSON has none."""
    return json.dumps(meta, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def encode_npy(array: npt.NDArray[Any]) -> bytes:
    """A `.npy` file as bytes."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def encode_flac(waveform: npt.NDArray[np.float32], rate_hz: int) -> bytes:
    """A waveform (samples, channels) in -1 .. 1 as 16-bit FLAC."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(waveform, -1, 1), rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


# --- decoding ---------------------------------------------------------------------------------


def split_jpegs(blob: bytes, sizes: Sequence[int]) -> list[bytes | None]:
    """The inverse of `join_jpegs`."""
    if sum(sizes) != len(blob):
        raise FormatError(
            f"the picture blob has {len(blob)} bytes; jpeg_sizes add up to {sum(sizes)}"
        )
    ends = np.cumsum([0, *sizes])
    return [blob[a:b] if b > a else None for a, b in pairwise(ends)]


def check_jpeg(jpeg: bytes, *, max_pixels: int = 1 << 24) -> None:
    """Refuse a picture that claims to be larger than any is."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if height * width > max_pixels:
        raise FormatError(f"a JPEG claims {width}x{height}; at most {max_pixels} pixels are read")


def decode_jpeg(jpeg: bytes, *, max_pixels: int = 1 << 24) -> Picture:
    """One picture (H, W, 3) RGB; the size is checked before memory is taken."""
    check_jpeg(jpeg, max_pixels=max_pixels)
    picture: Picture = simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
    return picture


def decode_npy(data: bytes) -> npt.NDArray[Any]:
    """A `.npy` member; its header must agree with its size, and objects are refused."""
    end_of_header = 10 + int.from_bytes(data[8:10], "little")
    shape, is_fortran, dtype = _npy_header(data[:end_of_header])
    expected = end_of_header + math.prod(shape) * dtype.itemsize
    if dtype.hasobject or expected != len(data):
        raise FormatError(
            f"an npy of {shape} {dtype} should have {expected} bytes, not {len(data)}"
        )
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    return np.ndarray(shape, dtype, data, end_of_header, order=order).copy("K")


@lru_cache(256)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type; remembered: parsing costs as much as the rest.

    numpy reads it as a Python literal, 0.1 ms, and the mels of clips of one length share theirs.
    """
    buffer = io.BytesIO(header)
    version = np.lib.format.read_magic(buffer)
    if version != (1, 0):
        raise FormatError(f"npy version {version}; only 1.0 is written")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    return shape, is_fortran, dtype


def decode_flac_pcm(data: bytes, samples: int) -> npt.NDArray[np.int16]:
    """(samples, channels) as stored; the length is checked before memory is taken.

    Raises:
        FormatError: it is no FLAC, or has another number of samples.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.frames != samples or file.subtype != "PCM_16":
                raise FormatError(
                    f"audio.flac has {file.frames} samples of {file.subtype}, expected {samples} "
                    "of PCM_16"
                )
            pcm = file.read(dtype="int16", always_2d=True)
    except soundfile.SoundFileError as error:
        raise FormatError(f"audio.flac: {error}") from error
    return np.asarray(pcm, np.int16)


def decode(members: Mapping[str, bytes]) -> Sample:
    """A sample from its members by extension (`json`, `mel.npy`, ...); everything is decoded.

    Raises:
        FormatError: a member is missing, or disagrees with the JSON.
    """
    meta = decode_meta(members)
    pictures, landmarks = {}, {}
    mel = waveform = None
    for name, data in members.items():
        if name.endswith(PICTURE_SUFFIX):
            pictures[name.removesuffix(PICTURE_SUFFIX)] = _decode_pictures(name, data, meta)
        elif name.startswith("landmarks"):
            landmarks[name.removesuffix(".npy")] = _check_landmarks(name, decode_npy(data), meta)
        elif name == "mel.npy":
            mel = _check_mel(decode_npy(data), meta)
        elif name == "audio.flac":
            waveform = _decode_waveform(data, meta)
        elif name != "json":
            raise FormatError(f"{meta['key']}: member {name!r} is not part of the format")
    return Sample(meta, pictures, mel, waveform, landmarks)


def decode_meta(members: Mapping[str, bytes]) -> dict[str, Any]:
    """The JSON member, with its schema version checked."""
    if "json" not in members:
        raise FormatError(f"a sample without .json; it has {sorted(members)}")
    meta = json.loads(members["json"])
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA_VERSION:
        raise FormatError(
            f"schema {meta.get('schema') if isinstance(meta, dict) else None!r}; this reader knows "
            f"schema {SCHEMA_VERSION}"
        )
    return meta


def _decode_pictures(name: str, blob: bytes, meta: dict[str, Any]) -> list[Picture | None]:
    sizes = meta["jpeg_sizes"].get(name.removesuffix(PICTURE_SUFFIX))
    if sizes is None or len(sizes) not in (0, meta["frames"]):
        raise FormatError(f"{meta['key']}: jpeg_sizes of {name} is not one size a frame")
    jpegs = split_jpegs(blob, sizes)
    return [decode_jpeg(jpeg) if jpeg else None for jpeg in jpegs]


def _check_landmarks(
    name: str, array: npt.NDArray[Any], meta: dict[str, Any]
) -> npt.NDArray[np.float32]:
    if array.shape[1:] != (N_LANDMARKS, 2) or array.shape[0] not in (0, meta["frames"]):
        raise FormatError(f"{meta['key']}: {name} is {array.shape}, frames {meta['frames']}")
    return array


def _check_mel(array: npt.NDArray[Any], meta: dict[str, Any]) -> npt.NDArray[np.float16]:
    expected = (N_MELS, MEL_SLICES_PER_FRAME * meta["frames"])
    if array.shape != expected or array.dtype != np.float16 or not np.isfinite(array).all():
        raise FormatError(
            f"{meta['key']}: mel is {array.dtype} {array.shape}, expected finite float16 {expected}"
        )
    return array


def _decode_waveform(data: bytes, meta: dict[str, Any]) -> npt.NDArray[np.float32]:
    """(samples, channels) in -1 .. 1."""
    pcm = decode_flac_pcm(data, waveform_samples(meta))
    if pcm.shape[1] != meta["waveform_channels"]:
        raise FormatError(
            f"{meta['key']}: audio.flac has {pcm.shape[1]} channels, expected "
            f"{meta['waveform_channels']}"
        )
    return pcm.astype(np.float32) / np.float32(PCM_FULL_SCALE)


def waveform_samples(meta: Mapping[str, Any]) -> int:
    """T x rate / fps: exactly how long the stored waveform is."""
    numerator, denominator = map(int, meta["fps"].split("/"))
    return int(meta["frames"]) * int(meta["waveform_rate_hz"]) * denominator // numerator


# --- reading a tar ----------------------------------------------------------------------------


def read_shard(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of one tar as (base name, members by extension), in order.

    Raises:
        FormatError: members of a sample are not adjacent, or a member is no plain, bounded file.
    """
    base: str | None = None
    members: dict[str, bytes] = {}
    seen: set[str] = set()
    with tarfile.open(path, "r:") as tar:
        for entry in tar:
            name, _, extension = entry.name.partition(".")
            if not entry.isreg() or not extension or entry.size > MAX_MEMBER_BYTES:
                raise FormatError(f"{path}: member {entry.name!r} is not part of the format")
            if name != base:
                if base is not None:
                    yield base, members
                if name in seen:
                    raise FormatError(f"{path}: members of {name!r} are not adjacent")
                seen.add(name)
                base, members = name, {}
            stream = tar.extractfile(entry)
            assert stream is not None
            members[extension] = stream.read()
    if base is not None:
        yield base, members
