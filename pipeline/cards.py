"""A sample as a card of a page: what the template shows and what the player plays.

Pictures go in as the stored JPEGs, byte for byte, so that what a person sees is what a trainer
reads. Boxes and landmarks go in as numbers, in pixels of the stored frames, and are drawn by the
browser. A card has a limit in seconds and in bytes; what is beyond it is left out and said so.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from manifests.recipes import recipe_of
from pipeline.config import MEL_SLICES_PER_FRAME
from pipeline.drawing import Mark, Span, band_marks, mel_png, runs, spans, time_marks
from pipeline.format import PICTURE_SUFFIX, Sample, decode
from pipeline.listen import SoundOf, page_sound
from pipeline.outputs import Place

LANDMARK_UNITS = 16
"""Landmarks are sent as 16-bit integers of 1/16 pixel."""
NO_LANDMARK = -32768
CROPS = ("face", "lip", "face2", "lip2")


@dataclass(frozen=True)
class CardLimits:
    """How much of a sample a page holds."""

    seconds: float = 30.0
    """Longest stretch played."""
    picture_bytes: int = 6 << 20
    """Most bytes of JPEGs."""


@dataclass(frozen=True)
class Card:
    """What the template needs for one sample."""

    key: str
    where: str
    """Shard and offset."""
    title: str
    """Labels in words."""
    transcript: str
    splits: list[str]
    facts: list[tuple[str, str]]
    note: str
    """What was left out, or what is missing; empty if nothing."""
    sound: str
    """Where the sound comes from; empty if there is none."""
    seconds: float
    """Length of the stretch shown."""
    mel: str
    """PNG in base64."""
    words: list[Span]
    segments: list[Span]
    states: list[list[Span]]
    """One list a face track."""
    missing: list[Span]
    """Held pictures and padded sound, as far as it can be seen."""
    times: list[Mark]
    bands: list[Mark]
    frames: int
    crops: list[str]
    """Which of `face`, `lip`, `face2`, `lip2` hold pictures."""
    has_pictures: bool
    player: dict[str, Any]
    """JSON for the player."""
    meta: dict[str, Any]
    """The sample's JSON member, shortened."""


def make_card(
    members: Mapping[str, bytes], place: Place, limits: CardLimits, sound_of: SoundOf | None
) -> Card:
    """The card of one sample.

    Raises:
        FormatError: the sample does not follow the format.
    """
    sample = decode(members)
    meta, fps = sample.meta, Fraction(sample.meta["fps"])
    frames = _shown_frames(meta, limits)
    seconds = float(frames / fps)
    sound = page_sound(sample, seconds, sound_of)
    crops = [n for n in CROPS if any(p is not None for p in sample.pictures.get(n, ()))]
    rate = float(fps)
    assert sample.mel is not None
    return Card(
        key=meta["key"],
        where=f"{place.shard}.tar @ {place.offset:,}",
        title=", ".join(map(str, meta["label_names"] or meta["labels"] or ())),
        transcript=meta.get("transcript") or "",
        splits=list(meta["splits"]),
        facts=_facts(meta),
        note=_note(meta, frames, sound is not None, crops, members),
        sound=sound.origin if sound else "",
        seconds=seconds,
        mel=_base64(mel_png(sample.mel[:, : 3 * frames])),
        words=labelled(meta, "words", "w", seconds),
        segments=labelled(meta, "segments", "label", seconds),
        states=[runs(track["state"][:frames], rate, seconds) for track in meta["faces"]],
        missing=_missing(meta, rate, seconds),
        times=time_marks(seconds),
        bands=band_marks(meta["mel_rate_hz"]),
        frames=frames,
        crops=crops,
        has_pictures=bool(sample.pictures.get("frames")),
        player=_player(sample, members, frames, sound.ogg if sound else None),
        meta=_shortened(meta),
    )


def _shown_frames(meta: dict[str, Any], limits: CardLimits) -> int:
    """Frames up to the limit in seconds and in bytes, at least one."""
    frames = min(int(meta["frames"]), int(limits.seconds * Fraction(meta["fps"])))
    sizes = [sizes for sizes in meta["jpeg_sizes"].values() if sizes]
    if sizes:
        reached = np.cumsum(np.sum(sizes, axis=0))
        frames = min(frames, int(np.searchsorted(reached, limits.picture_bytes, "right")))
    return max(1, frames)


# --- what the player plays --------------------------------------------------------------------


def _player(
    sample: Sample, members: Mapping[str, bytes], frames: int, ogg: bytes | None
) -> dict[str, Any]:
    meta = sample.meta
    pictures = {}
    for name, sizes in meta["jpeg_sizes"].items():
        if any(sizes[:frames]):
            blob = members[name + PICTURE_SUFFIX][: sum(sizes[:frames])]
            pictures[name] = {"blob": _base64(blob), "sizes": sizes[:frames]}
    return {
        "fps": float(Fraction(meta["fps"])),
        "frames": frames,
        "size": meta["frame_size"],
        "pts": meta["pts"][:frames],
        "pictures": pictures,
        "tracks": [_track(sample, number, frames) for number in range(len(meta["faces"]))],
        "sound": _base64(ogg) if ogg else None,
    }


def _track(sample: Sample, number: int, frames: int) -> dict[str, Any]:
    """Boxes and landmarks of a face in pixels of the stored frames."""
    meta, face = sample.meta, sample.meta["faces"][number]
    scale = stored_scale(meta)
    landmarks = sample.landmarks.get(("landmarks", "landmarks2")[number])
    boxes = [
        None
        if box is None
        else [round(float(edge * s), 2) for edge, s in zip(box, (*scale, *scale), strict=True)]
        for box in face["box"][:frames]
    ]
    return {
        "boxes": boxes,
        "states": face["state"][:frames],
        "landmarks": None if landmarks is None else _packed(landmarks[:frames] * scale),
    }


def stored_scale(meta: dict[str, Any]) -> tuple[float, float]:
    """Stored pixels for each displayed pixel of the source, across and down."""
    if not meta["frame_size"]:
        return 1.0, 1.0
    width, height = meta["frame_size"]
    return width / meta["source"]["width"], height / meta["source"]["height"]


def _packed(landmarks: np.ndarray[Any, Any]) -> str:
    known = np.nan_to_num(landmarks * LANDMARK_UNITS, nan=NO_LANDMARK)
    return _base64(np.clip(np.round(known), NO_LANDMARK, -NO_LANDMARK - 1).astype("<i2").tobytes())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# --- what the template shows ------------------------------------------------------------------


def labelled(meta: dict[str, Any], name: str, text: str, seconds: float) -> list[Span]:
    """Words or segments: their times count from the window's start, the axis from t0."""
    shift = meta["window_start"] - meta["t0"]
    items = (
        (item["start_s"] + shift, item["end_s"] + shift, str(item[text])) for item in meta[name]
    )
    return spans(items, seconds)


def _missing(meta: dict[str, Any], fps: float, seconds: float) -> list[Span]:
    """What the lane `missing` shows; a gap in the sound shorter than a mel slice is not seen."""
    slice_seconds = 1 / (MEL_SLICES_PER_FRAME * fps)
    held = [(index / fps, (index + 1) / fps, "picture held") for index in meta["held"]]
    gaps = ((start, end) for start, end in meta["padded"] if end - start >= slice_seconds)
    padded = [(start, end, "no sound") for start, end in gaps]
    return spans([*held, *padded], seconds)


def _note(
    meta: dict[str, Any],
    frames: int,
    has_sound: bool,
    crops: list[str],
    members: Mapping[str, bytes],
) -> str:
    notes = []
    if frames < meta["frames"]:
        notes.append(f"Shown are the first {frames:,} of {meta['frames']:,} frames.")
    if not has_sound:
        notes.append("No sound: the mel is at its floor throughout.")
    if "landmarks.npy" in members and not meta["faces"]:
        notes.append("No face was found.")
    elif "face.mjpeg" in members and not crops:
        notes.append("A face was found, but no crop of it is stored.")
    return " ".join(notes)


def _facts(meta: dict[str, Any]) -> list[tuple[str, str]]:
    """The table beside the player."""
    source, quality = meta["source"], meta["quality"]
    size = meta["frame_size"]
    stored = f"{size[0]}x{size[1]}, " if size else ""
    wave = f", {meta['waveform_rate_hz']} Hz x {meta['waveform_channels']}"
    codecs = " + ".join(filter(None, (source.get("video_codec"), source.get("audio_codec"))))
    flags = [name for name in ("silent", "static", "black") if quality.get(name)]
    return [
        ("stored", f"{stored}{meta['frames']} intervals at {float(Fraction(meta['fps'])):g} / s"),
        ("mel", f"{meta['mel_rate_hz']} Hz{wave if meta['waveform_rate_hz'] else ''}"),
        ("clock", f"t0 {meta['t0']:.3f} s, window from {meta['window_start']:.3f} s"),
        ("held, padded", f"{len(meta['held'])} frames, {_padded(meta)} of sound"),
        ("source", str(source.get("uri"))),
        ("container", f"{source.get('container')}: {codecs}"),
        ("picture", _source_picture(source)),
        ("loudness", _number(quality, "audio_dbfs", "{:.1f} dBFS")),
        ("luma, motion", f"{_number(quality, 'luma')}, {_number(quality, 'motion', '{:.2f}')}"),
        ("face rate", _number(quality, "face_rate", "{:.1%}") + _chosen(meta)),
        ("flags", ", ".join(flags) or "none"),
        *_recipe(meta),
        ("instance, group", f"{meta['instance']}, {meta['group']}"),
    ]


def _recipe(meta: dict[str, Any]) -> list[tuple[str, str]]:
    """How the clip was manipulated, if it was."""
    if "reference_key" not in meta["extra"]:
        return []
    recipe = recipe_of(meta["key"], meta["extra"])
    return [("made from", str(meta["extra"]["reference_key"])), ("recipe", str(recipe))]


def _padded(meta: dict[str, Any]) -> str:
    """How much sound is padded; GRID lacks 5 ms at its ends."""
    seconds = sum(end - start for start, end in meta["padded"])
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _source_picture(source: dict[str, Any]) -> str:
    if not source.get("width"):
        return "none"
    rate = source.get("fps")
    about = [f"{source['width']}x{source['height']}"]
    about += [f"{rate:.3f} fps" + (", variable" if source.get("vfr") else "")] if rate else []
    about += [f"rotated {source['rotation']}°"] if source.get("rotation") else []
    about += [f"{source['bad_packets']} bad packets"] if source.get("bad_packets") else []
    return ", ".join(about)


def _chosen(meta: dict[str, Any]) -> str:
    return "".join(f", chosen by {face.get('chosen_by')}" for face in meta["faces"][:1])


def _number(values: dict[str, Any], name: str, pattern: str = "{:.1f}") -> str:
    value = values.get(name)
    return "unknown" if value is None else pattern.format(value)


def _shortened(value: Any, most: int = 6) -> Any:
    """The JSON member with long lists cut, so that a person can read it."""
    if isinstance(value, dict):
        return {name: _shortened(item, most) for name, item in value.items()}
    if isinstance(value, list):
        kept = [_shortened(item, most) for item in value[:most]]
        return kept if len(value) <= most else [*kept, f"… {len(value) - most} more"]
    return value
