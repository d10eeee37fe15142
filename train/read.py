"""A part of a clip from its tar: some of its JPEGs, mel and waveform of the same or another time.

Samples are read where samples.parquet says they are, so any order costs the same; the members are
parsed by webdataset, with its dangerous parts off. Whatever does not fit the index is refused.
"""

import io
import json
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
import webdataset
from webdataset.tariterators import tar_file_iterator

from pipeline.format import (
    FIELD_SCHEMA,
    MEL_SLICES_PER_FRAME,
    N_MELS,
    FormatError,
    decode_flac_pcm,
    decode_meta,
    decode_npy,
    split_jpegs,
    waveform_samples,
)
from stores.base import ShardFile
from train.cache import CachedStore
from train.cuts import Stretch
from train.errors import ShardError
from train.fields import Field
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

    def crops(
        self, member: str, places: npt.NDArray[np.int64], side: int
    ) -> npt.NDArray[np.uint8] | None:
        """Crops of one face, (T, side, side, 3), at some places; None where no frame has one.

        Where a frame has none, the nearest one's.
        """
        name = member.removesuffix(".mjpeg")
        jpegs = split_jpegs(self.members[member], self.meta["jpeg_sizes"].get(name) or [])
        known = np.flatnonzero([jpeg is not None for jpeg in jpegs])
        if not len(known):
            return None
        nearest = known[np.abs(known[None, :] - places[:, None]).argmin(1)]
        chosen, where = np.unique(nearest, return_inverse=True)
        decoded = np.empty((len(chosen), side, side, 3), np.uint8)
        for index, place in enumerate(chosen.tolist()):
            jpeg = jpegs[place]
            assert jpeg is not None
            height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
            if (height, width) != (side, side):
                raise FormatError(f"a crop of {member} is {width}x{height}; expected {side}x{side}")
            decoded[index] = simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
        return decoded[where]

    def array(self, member: str) -> npt.NDArray[Any]:
        """An npy member."""
        return decode_npy(self.members[member])

    def mel(self, start: int, frames: int, member: str = MEL) -> npt.NDArray[np.float16]:
        """(80, 3 T) of T frames from `start` on."""
        mel = decode_npy(self.members[member])
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
        self._open: OrderedDict[str, ShardFile] = OrderedDict()
        beside = [one for one in shard_set.fields.values() if one.is_beside]
        self._side_of = {member: one for one in beside for member in one.members}

    def read(self, row: int, wanted: tuple[str, ...] = ("json", FRAMES, MEL)) -> StoredClip:
        """The wanted members of a clip.

        Raises:
            ShardError: the tar is not what the index says; the message names tar and clip.
            StoreError: it cannot be reached.
        """
        try:
            sides = {self._side_of[name].name: self._side_of[name] for name in wanted
                     if name in self._side_of}  # fmt: skip
            own = set(wanted) - self._side_of.keys()
            members = self._members(self._piece(row), self._set.members, own)
            meta = decode_meta(members)
            self._check_meta(row, meta)
        except DAMAGE as error:
            raise self.refusal(row, error) from error
        for side in sides.values():
            members |= self._beside(row, side, meta, set(wanted))
        return StoredClip(meta, members)

    def _beside(
        self, row: int, side: Field, meta: dict[str, Any], wanted: set[str]
    ) -> dict[str, bytes]:
        """The members of a field, from its side shard; the JSON of the clip learns of them."""
        head_name = side.members[0]
        try:
            piece = self._side_piece(row, side)
            members = self._members(piece, side.members, wanted & set(side.members) | {head_name})
            head = json.loads(members.pop(head_name))
            told = head.get("schema"), head.get("key"), head.get("frames")
            if told != (FIELD_SCHEMA, meta["key"], meta["frames"]):
                raise FormatError(f"its {head_name} is of {told}, not of {meta['key']!r}")
            meta["jpeg_sizes"] = {**meta["jpeg_sizes"], **head.get("jpeg_sizes", {})}
        except DAMAGE as error:
            raise self.refusal(row, error, side) from error
        return members

    def refusal(self, row: int, error: Exception, side: Field | None = None) -> ShardError:
        """What to tell a person about a clip that cannot be read, or a field of it."""
        store = self._set.store
        shard = int(self._set.shard[row])
        name = self._set.shards[shard] if side is None else side.urls[shard]
        url = store.url(name)
        said = " ".join(str(error).split())[:300] or type(error).__name__
        mended = (
            f"remove the sidecars (.json) of the shards it names and run `python -m pipeline "
            f"add-field {store} {side.name}` again"
            if side
            else "remove the sidecars (.json) of the shards it names and run `make shards` again"
        )
        advice = (
            f"Check the set with `python -m pipeline verify {store} --deep`; {mended}"
            if store.is_local
            else "Copy it there again from the set that was verified"
        )
        if isinstance(store, CachedStore) and (copy := store.copy_of(name)):
            # It had the right bytes when it was fetched: the disk here may have changed them.
            advice = f"It was read from its copy {copy}; delete that, and it is fetched anew"
        return ShardError(
            f"{url}, clip {self._set.keys[row].as_py()!r}: {said}. {advice}{self._or_else}", url
        )

    def _members(self, piece: "Piece", stored: Sequence[str], wanted: set[str]) -> dict[str, bytes]:
        """Stops reading once it has everything: crops and landmarks lie behind."""
        base = piece.base
        known = set(stored) or wanted
        found: dict[str, bytes] = {}
        for name, data in self._files(piece):
            stem, _, extension = name.partition(".")
            if stem != base or (extension not in known and stored):
                raise FormatError(f"member {name[:100]!r} is not part of the sample {base!r}")
            if extension in found:
                raise FormatError(f"member {name[:100]!r} is there twice")
            if extension in wanted:
                found[extension] = data
            if found.keys() == wanted:
                return found
        missing = ", ".join(sorted(wanted - found.keys()))
        raise FormatError(f"the sample {base!r} has no {missing} where the index says it is")

    def _files(self, piece: "Piece") -> Iterator[tuple[str, bytes]]:
        part = FileSlice(self._file(piece), piece.offset, piece.size)
        stream = io.BufferedReader(part, part.read_ahead)
        if stream.peek(262)[257:262] != b"ustar":  # what tarfile would take for a compressed tar
            raise FormatError("there is no tar header where the index says the sample begins")
        for file in tar_file_iterator(stream):
            yield file["fname"], file["data"]

    def _piece(self, row: int) -> "Piece":
        """Where a clip lies."""
        chosen, shard = self._set, int(self._set.shard[row])
        return Piece(
            chosen.bases[row].as_py(), chosen.shards[shard], int(chosen.shard_bytes[shard]),
            int(chosen.offset[row]), int(chosen.size[row]),
            lambda: (chosen.offset + chosen.size)[chosen.shard == shard],
        )  # fmt: skip

    def _side_piece(self, row: int, side: Field) -> "Piece":
        """Where its side sample lies.

        Raises:
            FormatError: it has none.
        """
        shard = int(self._set.shard[row])
        if not side.there[row]:
            why = side.why_not(self._set.keys[row].as_py())
            raise FormatError(f"it has no {side.name} ({why})")
        return Piece(
            self._set.bases[row].as_py(), side.urls[shard], side.url_bytes[shard],
            int(side.offset[row]), int(side.size[row]),
            lambda: (side.offset + side.size)[side.there & (self._set.shard == shard)],
        )  # fmt: skip

    def _file(self, piece: "Piece") -> ShardFile:
        if piece.url in self._open:
            self._open.move_to_end(piece.url)
            return self._open[piece.url]
        if len(self._open) >= MAX_OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        file = self._set.store.open(piece.url)
        if file.size not in (piece.tar_bytes, -1):
            file.close()
            ends = piece.ends()
            raise FormatError(
                f"the tar has {file.size} bytes, the index says {piece.tar_bytes}; expected "
                f"{len(ends)} samples, got at most {int((ends <= file.size).sum())}"
            )
        self._open[piece.url] = file
        return file

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


@dataclass(frozen=True)
class Piece:
    """Where one sample lies."""

    base: str
    """The base name of its members."""
    url: str
    """Of its tar."""
    tar_bytes: int
    offset: int
    size: int
    ends: Callable[[], npt.NDArray[np.int64]]
    """Where the samples of this tar end, for what is told of a short one."""


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
