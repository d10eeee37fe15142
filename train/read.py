"""A part of a clip from its tar: some of its JPEGs, mel and waveform of the same or another time.

Samples are read where samples.parquet says they are, so any order costs the same; the members are
parsed by webdataset, with its dangerous parts off. Whatever does not fit the index is refused.
"""

import io
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
import webdataset
from webdataset.tariterators import tar_file_iterator

from pipeline.format import (
    MEL_SLICES_PER_FRAME,
    N_MELS,
    FormatError,
    decode_flac_pcm,
    decode_meta,
    decode_npy,
    waveform_samples,
)
from stores.base import ShardFile
from train.cache import CachedStore
from train.cuts import Stretch
from train.errors import ShardError
from train.index import ShardSet

webdataset.utils.enforce_security = True  # also where webdataset was imported before us

DAMAGE = (ValueError, KeyError, TypeError, ArithmeticError, RecursionError, OSError,
          tarfile.TarError)  # fmt: skip
"""What reading and decoding a damaged sample may raise; FormatError is a ValueError."""
MAX_OPEN_FILES = 64
MAX_ASPECT = 64
FRAMES, MEL, WAVE = "frames.mjpeg", "mel.npy", "audio.flac"
Bytes3 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Window:
    """A part of a clip."""

    start: int
    """First frame."""
    frames: int
    shift: float
    """0 .. 1: where along the long side the square is cut out; 0.5 is the centre."""


@dataclass(frozen=True)
class StoredClip:
    """The members of one sample, not decoded yet."""

    meta: dict[str, Any]
    """The JSON member."""
    members: dict[str, bytes]
    """By extension."""

    def pictures(self, places: Sequence[int], shift: float, side: int, out: Bytes3) -> None:
        """Decode frames, cut to squares, into `out` (T, side, side, 3); each one once.

        Args:
            places: numbers of the frames, in the order wanted; they may come several times.
            shift: 0 .. 1: where along the long side the square is cut out; 0.5 is the centre.
            side: pixels, the frames' short side.
            out: where they go.
        """
        sizes = self.meta["jpeg_sizes"]["frames"]
        blob = memoryview(self.members[FRAMES])
        if len(sizes) != self.meta["frames"] or sum(sizes) != len(blob):
            raise FormatError(
                f"{len(sizes)} JPEGs of {sum(sizes)} bytes are announced, {FRAMES} has {len(blob)}"
                f" bytes for {self.meta['frames']} frames"
            )
        ends = list(accumulate(sizes, initial=0))
        done: dict[int, int] = {}
        scratch = np.empty(0, np.uint8)  # one for all frames: a seventh faster than one each
        for index, place in enumerate(places):
            if place in done:
                out[index] = out[done[place]]
                continue
            done[place] = index
            jpeg = bytes(blob[ends[place] : ends[place + 1]])
            height, width = _checked_size(jpeg, side)
            if scratch.size < 3 * height * width:
                scratch = np.empty(3 * height * width, np.uint8)
            picture = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=scratch)
            out[index] = _square(picture, side, shift)

    def waveform(self, stretches: Sequence[Stretch], channels: int) -> npt.NDArray[np.int16]:
        """Pieces of the stored waveform: (stretches, channels, count), zeros outside."""
        samples = decode_flac_pcm(self.members[WAVE], waveform_samples(self.meta))
        if samples.shape[1] != channels:
            raise FormatError(f"{WAVE} has {samples.shape[1]} channels, expected {channels}")
        return np.stack([_stretch(samples, stretch) for stretch in stretches])

    def mel(self, start: int, frames: int) -> npt.NDArray[np.float16]:
        """(80, 3 T) of T frames from `start` on."""
        mel = decode_npy(self.members[MEL])
        expected = (N_MELS, MEL_SLICES_PER_FRAME * self.meta["frames"])
        if mel.shape != expected or mel.dtype != np.float16:
            raise FormatError(f"mel is {mel.dtype} {mel.shape}, expected float16 {expected}")
        first = MEL_SLICES_PER_FRAME * start
        part = mel[:, first : first + MEL_SLICES_PER_FRAME * frames]
        if not np.isfinite(part).all():
            raise FormatError("mel is not finite")
        return part


def _stretch(samples: npt.NDArray[np.int16], stretch: Stretch) -> npt.NDArray[np.int16]:
    """(channels, count) of (samples, channels)."""
    places = stretch.first + stretch.step * np.arange(stretch.count)
    inside = (places >= 0) & (places < len(samples))
    found = np.zeros((stretch.count, samples.shape[1]), np.int16)
    found[inside] = samples[places[inside]]
    return found.T


def _checked_size(jpeg: bytes, side: int) -> tuple[int, int]:
    """Height and width from the header, before memory is taken."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if min(height, width) != side or max(height, width) > MAX_ASPECT * side:
        raise FormatError(f"a frame is {width}x{height}; its short side should be {side}")
    return height, width


def _square(picture: Bytes3, side: int, shift: float) -> Bytes3:
    height, width, _ = picture.shape
    top, left = int(shift * (height - side + 1)), int(shift * (width - side + 1))
    return picture[min(top, height - side) :, min(left, width - side) :][:side, :side]


class ShardReader:
    """Reads samples of one set in any order; keeps some tars open. One per worker process."""

    def __init__(self, shard_set: ShardSet, can_skip: bool = False) -> None:
        """Nothing is opened yet.

        Args:
            shard_set: what is read.
            can_skip: whether the command has --on-bad-shard, for what is told about damage.
        """
        self._set = shard_set
        self._or_else = ", or go on without it: --on-bad-shard skip" if can_skip else ""
        self._open: OrderedDict[int, ShardFile] = OrderedDict()

    def read(self, row: int, wanted: tuple[str, ...] = ("json", FRAMES, MEL)) -> StoredClip:
        """The wanted members of a clip.

        Raises:
            ShardError: the tar is not what the index says; the message names tar and clip.
            StoreError: it cannot be reached.
        """
        try:
            members = self._members(row, set(wanted))
            meta = decode_meta(members)
            self._check_meta(row, meta)
        except DAMAGE as error:
            raise self.refusal(row, error) from error
        return StoredClip(meta, members)

    def refusal(self, row: int, error: Exception) -> ShardError:
        """What to tell a person about a clip that cannot be read."""
        store = self._set.store
        name = self._set.shards[int(self._set.shard[row])]
        url = store.url(name)
        said = " ".join(str(error).split())[:300] or type(error).__name__
        advice = (
            f"Check the set with `python -m pipeline verify {store} --deep`; remove the sidecars "
            "(.json) of the shards it names and run `make shards` again"
            if store.is_local
            else "Copy it there again from the set that was verified"
        )
        if isinstance(store, CachedStore) and (copy := store.copy_of(name)):
            # It had the right bytes when it was fetched: the disk here may have changed them.
            advice = f"It was read from its copy {copy}; delete that, and it is fetched anew"
        return ShardError(
            f"{url}, clip {self._set.keys[row].as_py()!r}: {said}. {advice}{self._or_else}", url
        )

    def _members(self, row: int, wanted: set[str]) -> dict[str, bytes]:
        """Stops reading once it has everything: crops and landmarks lie behind."""
        base = self._set.bases[row].as_py()
        known = set(self._set.members) or wanted
        found: dict[str, bytes] = {}
        for name, data in self._files(row, wanted):
            stem, _, extension = name.partition(".")
            if stem != base or (extension not in known and self._set.members):
                raise FormatError(f"member {name[:100]!r} is not part of the sample {base!r}")
            if extension in found:
                raise FormatError(f"member {name[:100]!r} is there twice")
            if extension in wanted:
                found[extension] = data
            if found.keys() == wanted:
                return found
        missing = ", ".join(sorted(wanted - found.keys()))
        raise FormatError(f"the sample {base!r} has no {missing} where the index says it is")

    def _files(self, row: int, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        piece = self._slice(row)
        stream = io.BufferedReader(piece, piece.read_ahead)
        if stream.peek(262)[257:262] != b"ustar":  # what tarfile would take for a compressed tar
            raise FormatError("there is no tar header where the index says the sample begins")
        for file in tar_file_iterator(stream):
            yield file["fname"], file["data"]

    def _slice(self, row: int) -> "FileSlice":
        shard = int(self._set.shard[row])
        offset, size = int(self._set.offset[row]), int(self._set.size[row])
        return FileSlice(self._file(shard), offset, size)

    def _file(self, shard: int) -> ShardFile:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        if len(self._open) >= MAX_OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        file = self._set.store.open(self._set.shards[shard])
        expected = int(self._set.shard_bytes[shard])
        if file.size not in (expected, -1):
            file.close()
            raise FormatError(self._short(shard, file.size, expected))
        self._open[shard] = file
        return file

    def _short(self, shard: int, found: int, expected: int) -> str:
        rows = self._set.shard == shard
        ends = self._set.offset[rows] + self._set.size[rows]
        return (
            f"the tar has {found} bytes, the index says {expected}; expected {len(ends)} samples, "
            f"got at most {int((ends <= found).sum())}"
        )

    def _check_meta(self, row: int, meta: dict[str, Any]) -> None:
        """The sample must be the one the index means."""
        listed = {"key": self._set.keys[row].as_py(), "frames": int(self._set.frames[row])}
        for name, value in listed.items():
            if meta.get(name) != value:
                raise FormatError(f"its JSON has {name} {meta.get(name)!r}, the index {value!r}")

    def close(self) -> None:
        """Close all tars."""
        while self._open:
            self._open.popitem()[1].close()


class FileSlice(io.RawIOBase):
    """Bytes `offset` .. `offset + size` of an open file, as a file."""

    def __init__(self, file: ShardFile, offset: int, size: int) -> None:
        """The file stays the caller's."""
        self._file = file
        self._position = offset
        self._end = offset + size
        self.read_ahead = min(file.read_ahead, size)
        """Bytes that are worth reading at once."""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As io.RawIOBase."""
        room = memoryview(buffer)[: max(self._end - self._position, 0)]
        count = self._file.read_into(room, self._position) if len(room) else 0
        self._position += count
        return count
