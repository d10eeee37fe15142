"""An example -> windows of its pictures and its sound -> ClipBatch after ClipBatch.

Worker processes decode; windows are drawn from (seed, epoch, name) alone in training and evenly
spread in scoring. An example shorter than its window is repeated from its beginning, or goes on
with its last frame and silence.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.format import MEL_SLICES_PER_FRAME, FormatError, waveform_samples
from train.augment import PCM_16, Augment, centre_pictures
from train.cuts import Sound, Stretch, Wave
from train.errors import FOR_PEOPLE, UsageError
from train.evaluation.box_crops import box_crops
from train.evaluation.labelled import Example
from train.evaluation.task import Padding, Pictures
from train.index import ShardSet
from train.plan import seed_of, shuffled
from train.read import DAMAGE, FRAMES, MEL, WAVE, ShardReader, StoredClip
from train.readers import items_of, start_reader

SILENCE = float(np.log(1e-5))
"""Mel of no sound: what the pipeline stores at least."""
SECOND_TRACK = "2"
"""Ending of a second face's members."""


class Look(NamedTuple):
    """A window of an example."""

    example: int
    """Position in the list of examples."""
    start: int
    """First frame, counted from the example's."""
    frames: int
    shift: float
    """0 .. 1: where along the long side the square is cut out."""


@dataclass(frozen=True)
class ClipView:
    """What of a sample is read."""

    pictures: Pictures
    sound: Sound | None = None
    """None reads none."""
    padding: Padding = "repeat"
    """What comes after the end of an example."""

    def members(self, track: int) -> tuple[str, ...]:
        """Extensions to read."""
        wanted = ["json"]
        if self.pictures != "none":
            wanted.append(FRAMES)  # of crops, too: what a clip without a face is seen by
        if self.pictures in ("lip", "face"):
            wanted.append(self.crop_member(track))
        heard = {None: [], "mel": [MEL]}.get(self.sound, [WAVE])  # type: ignore[arg-type]
        return (*wanted, *heard)

    def crop_member(self, track: int) -> str:
        """`lip.mjpeg`, `face2.mjpeg` and so on."""
        return f"{self.pictures}{SECOND_TRACK if track else ''}.mjpeg"

    def side(self, config: dict[str, Any]) -> int:
        """Pixels of the squares that are read, by the shard set's configuration."""
        return int(config["short_side"] if self.pictures == "frames" else config["crop_size"])


def require_members(shard_set: ShardSet, view: ClipView, task: str) -> None:
    """Refuse a set that does not store what is looked at.

    Raises:
        UsageError: names what is missing and the profile that has it.
    """
    stored = set(shard_set.members).union(*(one.members for one in shard_set.fields.values()))
    missing = sorted(set(view.members(0)) - stored)
    config = shard_set.config
    if isinstance(view.sound, Wave) and not missing:
        found = (config.get("waveform_rate_hz"), config.get("waveform_channels"))
        if stored and found != view.sound:
            missing = [f"a waveform of {view.sound.rate_hz} Hz in {view.sound.channels} channel(s)"]
    if stored and missing:
        raise UsageError(
            f"task {task} reads {', '.join(missing)}, which {shard_set.name} does not store "
            f"(profile {shard_set.config.get('profile')}); make the shards with another PROFILE, "
            f"choose other --pictures or --modality{_addable(shard_set, missing)}"
        )


def _addable(shard_set: ShardSet, missing: Sequence[str]) -> str:
    """How to add crops to a set that stores frames."""
    if FRAMES not in shard_set.members or missing not in (["lip.mjpeg"], ["face.mjpeg"]):
        return ""
    name = missing[0].partition(".")[0]
    where = shard_set.store if shard_set.store.is_local else "OUT"
    return (
        f", or cut the crops from the stored frames, as sharp as those are: `python -m pipeline "
        f"add-field {where} {name}`"
    )


@dataclass(frozen=True)
class ClipBatch:
    """B windows; as read, pictures are bytes and mel half precision."""

    video: Tensor | None
    """uint8 (B, T, S, S, 3); float (B, 3, T, H, W) once prepared."""
    sound: Tensor | None
    """float16 (B, 80, 3 T) of mel, or int16 (B, channels, samples) of waveform; float32 once
    prepared, waveforms in -1 .. 1."""
    lengths: Tensor
    """int64 (B,): frames of each window; shorter ones are repeated up to T."""
    examples: Tensor
    """int64 (B,): positions in the list of examples."""
    faceless: Tensor
    """bool (B,): a crop was asked for, and there is no face in the whole clip."""

    def __len__(self) -> int:
        """Windows."""
        return len(self.examples)

    def to(self, device: torch.device) -> "ClipBatch":
        """What the network sees, on its device."""
        video = None if self.video is None else self.video.to(device, non_blocking=True)
        sound = None if self.sound is None else self.sound.to(device, non_blocking=True)
        return replace(self, video=video, sound=sound)

    def centred(self, crop: int) -> "ClipBatch":
        """Prepared for scoring: the middle of the square, nothing random."""
        video = None if self.video is None else centre_pictures(self.video, crop)
        sound = None if self.sound is None else as_float(self.sound)
        return replace(self, video=video, sound=sound)

    def augmented(self, augment: Augment, number: int) -> "ClipBatch":
        """Prepared for training."""
        is_wave = self.sound is not None and self.sound.dtype == torch.int16
        mel = None if is_wave else self.sound
        video, sound = augment.clips(self.video, mel, number)
        if is_wave:
            assert self.sound is not None
            sound = augment.waveforms(self.sound, number)
        return replace(self, video=video, sound=sound)


# --- which windows ------------------------------------------------------------------------------


def scored_looks(examples: Sequence[Example], frames: int, clips: int, crops: int) -> list[Look]:
    """Windows that are scored.

    Args:
        examples: of which.
        frames: window; 0 is each example's own length.
        clips: evenly spread over each example; 0 tiles it, the rest that fills no window left out.
        crops: 1 (centre) or 3 squares along the long side.
    """
    return looks_at(examples, frames, crops, lambda length, window: starts(length, window, clips))


def looks_at(
    examples: Sequence[Example], frames: int, crops: int, where: Callable[[int, int], list[int]]
) -> list[Look]:
    """As `scored_looks`; `where(length, window)` says where they start."""
    shifts = (0.5,) if crops == 1 else (0.0, 0.5, 1.0)
    return [
        Look(number, start, frames or example.frames, shift)
        for number, example in enumerate(examples)
        for start in where(example.frames, frames or example.frames)
        for shift in shifts
    ]


def starts(length: int, frames: int, clips: int) -> list[int]:
    """Where windows begin: tiles, or `clips` from end to end, the middle for one."""
    room = max(length - frames, 0)
    if clips == 0:
        return list(range(0, room + 1, frames))
    if clips == 1:
        return [room // 2]
    spread = np.linspace(0, room, clips).round().astype(int).tolist()
    return list(dict.fromkeys(spread))


def training_looks(examples: Sequence[Example], frames: int, seed: int, epoch: int) -> list[Look]:
    """One random window of each example, in random order; depends on nothing but the arguments."""
    order = shuffled(len(examples), seed_of(seed, epoch, "order"))
    looks = []
    for number in order.tolist():
        example = examples[number]
        length = frames or example.frames
        draw = seed_of(seed, epoch, example.name)
        shift = seed_of(seed, epoch, example.name, "shift") / 2**64
        looks.append(Look(number, draw % (max(example.frames - length, 0) + 1), length, shift))
    return looks


def batched(looks: Sequence[Look], size: int, equal: bool) -> Iterator[list[Look]]:
    """In batches; with `equal` only windows of one length share one, so that nothing is padded."""
    batch: list[Look] = []
    for look in looks:
        if batch and (len(batch) == size or (equal and look.frames != batch[0].frames)):
            yield batch
            batch = []
        batch.append(look)
    if batch:
        yield batch


# --- reading ------------------------------------------------------------------------------------


def read_clips(
    shard_set: ShardSet,
    examples: Sequence[Example],
    view: ClipView,
    batches: Sequence[list[Look]],
    workers: int,
) -> Iterator[ClipBatch]:
    """Batches in the order given.

    Raises:
        ShardError: a tar is damaged or is not the one the index means.
        StoreError: a tar cannot be reached.
    """
    loader: DataLoader[ClipBatch | Exception] = DataLoader(
        ClipReader(shard_set, examples, view),
        batch_sampler=batches,
        num_workers=min(workers, len(batches)),
        collate_fn=_as_is,
        worker_init_fn=start_reader,
        generator=torch.Generator(),  # or starting would advance the model's random numbers
    )
    for item in items_of(loader):
        if isinstance(item, Exception):
            raise item
        yield item


class ClipReader(Dataset[ClipBatch | Exception]):
    """Reads whole batches; lives in the workers."""

    def __init__(self, shard_set: ShardSet, examples: Sequence[Example], view: ClipView) -> None:
        """Opens nothing, so that it can be handed to worker processes."""
        self._set, self._examples, self._view = shard_set, examples, view
        self._reader: ShardReader | None = None

    def __getitems__(self, looks: list[Look]) -> ClipBatch | Exception:
        """One batch; an error travels as a value, because a traceback helps nobody."""
        if self._reader is None:
            self._reader = ShardReader(self._set)
        length = max(look.frames for look in looks)
        try:
            read = [self._read(self._reader, look, length) for look in looks]
        except FOR_PEOPLE as error:
            return error
        videos, sounds, faceless = zip(*read, strict=True)
        return ClipBatch(
            video=None if videos[0] is None else torch.from_numpy(np.stack(videos)),
            sound=None if sounds[0] is None else torch.from_numpy(np.stack(sounds)),
            lengths=torch.tensor([look.frames for look in looks]),
            examples=torch.tensor([look.example for look in looks]),
            faceless=torch.tensor(faceless),
        )

    def _read(self, reader: ShardReader, look: Look, length: int) -> tuple[Any, Any, bool]:
        example = self._examples[look.example]
        clip = reader.read(example.row, self._view.members(example.track))
        asked = look.start + np.arange(length)
        held = self._view.padding == "silence"
        inside = np.minimum(asked, example.frames - 1) if held else asked % example.frames
        places = example.start + inside
        try:
            video, faceless = self._pictures(clip, places, look.shift, example.track)
            silent = asked != inside if held else np.zeros(length, bool)
            heard = places + example.sound_later
            return video, _sound(clip, self._view.sound, heard, silent), faceless
        except DAMAGE as error:
            raise reader.refusal(example.row, error) from error

    def _pictures(
        self, clip: StoredClip, places: npt.NDArray[np.int64], shift: float, track: int
    ) -> tuple[Any, bool]:
        """(T, S, S, 3), and whether a face was asked for that is nowhere in the clip."""
        if self._view.pictures == "none":
            return None, False
        side, short_side = (self._view.side(self._set.config), int(self._set.config["short_side"]))
        if self._view.pictures == "frames":
            return _squares(clip, places, side, shift), False
        if self._view.pictures == "box":
            crops = box_crops(clip, places, short_side, side)
        else:
            crops = clip.crops(self._view.crop_member(track), places, side)
        if crops is None:  # said by `faceless`: a centre crop is no face
            return _centre_of_frames(clip, places, short_side, side), True
        return crops, False


def _squares(
    clip: StoredClip, places: npt.NDArray[np.int64], side: int, shift: float
) -> npt.NDArray[np.uint8]:
    """Squares of whole frames."""
    decoded = np.empty((len(places), side, side, 3), np.uint8)
    clip.pictures(places.tolist(), shift, side, decoded)
    return decoded


def _centre_of_frames(
    clip: StoredClip, places: npt.NDArray[np.int64], short_side: int, side: int
) -> npt.NDArray[np.uint8]:
    """The middle of the frames, as large as a crop."""
    frames = _squares(clip, places, short_side, 0.5)
    if side > short_side:
        raise FormatError(f"crops have {side} pixels, frames {short_side}; expected larger frames")
    margin = (short_side - side) // 2
    return frames[:, margin : margin + side, margin : margin + side]


def _sound(
    clip: StoredClip,
    sound: Sound | None,
    places: npt.NDArray[np.int64],
    silent: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float16] | npt.NDArray[np.int16] | None:
    """The sound of frames at some places, silence where it is asked for."""
    if sound is None:
        return None
    return _mel(clip, places, silent) if sound == "mel" else _wave(clip, sound, places, silent)


def _mel(
    clip: StoredClip, places: npt.NDArray[np.int64], silent: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float16]:
    """(80, 3 T)."""
    whole = clip.mel(0, clip.meta["frames"])
    slices = places[:, None] * MEL_SLICES_PER_FRAME + np.arange(MEL_SLICES_PER_FRAME)
    mel = whole[:, slices.ravel()]
    mel[:, silent.repeat(MEL_SLICES_PER_FRAME)] = SILENCE
    return mel


def _wave(
    clip: StoredClip, wave: Wave, places: npt.NDArray[np.int64], silent: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int16]:
    """(channels, samples)."""
    samples = waveform_samples(clip.meta)
    frames = clip.meta["frames"]
    if samples % frames:
        raise FormatError(f"{samples} samples of waveform do not divide into {frames} frames")
    (whole,) = clip.waveform((Stretch(0, samples),), wave.channels)
    each = whole.reshape(wave.channels, frames, samples // frames)[:, places]
    each[:, silent] = 0
    joined: npt.NDArray[np.int16] = each.reshape(wave.channels, -1)
    return joined


def as_float(sound: Tensor) -> Tensor:
    """Mel as it is; waveforms from 16 bits to -1 .. 1."""
    return sound.float() / PCM_16 if sound.dtype == torch.int16 else sound.float()


def _as_is(batch: Any) -> Any:
    """`__getitems__` collates already."""
    return batch
