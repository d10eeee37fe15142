"""`pipeline peek OUT [KEY ...] [--html FILE | --picture FILE]`: what is in these shards.

Without a file, a few lines a sample on the terminal. With a page, a player shows frames, face and
lips in step with the sound and the mel; a picture has all of a sample on one time axis. Works while
the job still runs.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from manifests.errors import UsageError
from manifests.recipes import recipe_of
from pipeline.account import account_of
from pipeline.cards import Card, CardLimits, make_card
from pipeline.check import UNREADABLE
from pipeline.dropped import dropped_keys
from pipeline.elsewhere import require_outside, require_page
from pipeline.errors import plain_text
from pipeline.field_check import sample_lines
from pipeline.format import Sample, decode
from pipeline.listen import SoundOf
from pipeline.outputs import Outputs, Place, reading_table
from pipeline.pages import render
from pipeline.shard import write_atomically
from pipeline.timeline import save as save_timeline
from pipeline.units import counted
from pipeline.view import places_of

DEFAULT_COUNT = 8
MAX_COUNT = 32
"""Most samples on one page: each may bring megabytes."""


def peek(
    out: Path,
    keys: Sequence[str] = (),
    *,
    html: Path | None = None,
    picture: Path | None = None,
    count: int = DEFAULT_COUNT,
    where: str | None = None,
    sound_of: SoundOf | None = None,
) -> list[str]:
    """Show samples of a set.

    Args:
        out: the OUT folder of `pipeline shards`.
        keys: which samples; none means some from all over the set.
        html: where to write a page; without it and a picture there is text.
        picture: where to draw one sample, the first where none is named.
        count: how many without `keys`, at most 32.
        where: without `keys`, only samples for which this is true.
        sound_of: the source's sound for a sample's JSON, where the source is at hand.

    Returns:
        Lines for the terminal.

    Raises:
        UsageError: a key is not in the set, the set has no sample yet, or the file cannot be.
    """
    outputs = Outputs(out)
    if html is not None:
        require_page("--html", html, [out])
    if picture is not None:
        _require_one(out, keys, html, picture)
        count = 1
    if where is None or keys:
        places = find_places(outputs, keys, min(count, MAX_COUNT))
    else:
        places = places_of(out, where, min(count, MAX_COUNT))
    if picture is not None:
        return [_drawn(outputs, places[0], picture)]
    if html is None:
        return [line for place in places for line in _sample_lines(outputs, place)]
    cards, unreadable = cards_of(outputs, places, CardLimits(), sound_of)
    page = render(
        "peek.html",
        title=outputs.plan.name,
        lead=f"{counted(len(cards), 'sample')} of {out}, each with picture and sound on one clock.",
        cards=cards,
        unreadable=unreadable,
    )
    write_text(html, page)
    return [*unreadable, f"{html}: {counted(len(cards), 'sample')}, {len(page) / 1e6:.1f} MB"]


def _require_one(out: Path, keys: Sequence[str], html: Path | None, picture: Path) -> None:
    """A picture is of one sample, and not in the set.

    Raises:
        UsageError: with what to do.
    """
    if html is not None:
        raise UsageError("--html and --picture are two calls: a page, or a picture of one sample")
    if len(keys) > 1:
        raise UsageError(f"--picture shows one sample; {len(keys)} keys are named: name one")
    require_outside("--picture", picture, [out])


def _drawn(outputs: Outputs, place: Place, path: Path) -> str:
    """The line about a sample's picture, once it is written."""
    try:
        sample = decode(outputs.read_members(place))
    except UNREADABLE as error:
        raise UsageError(f"{_unreadable(place, error)}; `verify` says what to do") from error
    return save_timeline(sample, path)


def find_places(outputs: Outputs, keys: Sequence[str], count: int) -> list[Place]:
    """The places of `keys`, or of `count` samples spread over the committed shards.

    Raises:
        UsageError: a key is not in the set, or the set has no sample yet.
    """
    places = _named(outputs, keys) if keys else _spread(outputs, count)
    if not places:
        raise UsageError(f"{outputs.out} has no committed sample yet; `status` says how far it is")
    return places


def _named(outputs: Outputs, keys: Sequence[str]) -> list[Place]:
    wanted = dict.fromkeys(keys)
    if outputs.samples_path.is_file():
        found = _from_table(outputs, ds.field("key").isin(list(wanted)))
    else:
        account = account_of(outputs.out, outputs.plan)
        found = (
            place
            for place in outputs.places()
            if place.key in wanted and place.key not in account.not_of(place.shard)
        )
    places = {place.key: place for place in islice(found, len(wanted))}
    lost_keys = [key for key in wanted if key not in places]
    lost = [plain_text(key) for key in lost_keys]
    if gone := [plain_text(key) for key in lost_keys if key in dropped_keys(outputs.out)]:
        raise UsageError(f"{', '.join(gone)}: dropped from {outputs.out}, so it is not shown")
    if lost:
        raise UsageError(
            f"{', '.join(lost)}: not among the samples of {outputs.out}; `python -m pipeline "
            f"errors {outputs.out}` says whether it failed. Keys are those of samples.parquet: a "
            "file talk/1.mp4 of one's own has the key talk/1_mp4"
        )
    return [places[key] for key in wanted]


def _from_table(outputs: Outputs, condition: ds.Expression) -> Iterator[Place]:
    columns = ["key", "shard", "offset", "size"]
    with reading_table(outputs.samples_path):
        table = ds.dataset(outputs.samples_path).scanner(columns=columns, filter=condition)
        for batch in table.to_batches():
            yield from (Place(**row) for row in batch.to_pylist())


def _spread(outputs: Outputs, count: int) -> list[Place]:
    """Some samples from each of a few shards that lie evenly in the set."""
    shards = [s for s in outputs.plan.shards if outputs.sidecar_path(s.name).is_file()]
    chosen = shards[:: max(1, len(shards) // max(1, count))][:count]
    each = -(-count // max(1, len(chosen)))
    places: list[Place] = []
    account = account_of(outputs.out, outputs.plan)
    for shard in chosen:
        sidecar, elsewhere = outputs.sidecar(shard.name), account.not_of(shard.name)
        samples = sidecar.samples if sidecar else []
        entries = [entry for entry in samples if entry["key"] not in elsewhere]
        step = max(1, len(entries) // each)
        places += [
            Place(entry["key"], shard.name, entry["offset"], entry["size"])
            for entry in entries[::step][:each]
        ]
    return places[:count]


def cards_of(
    outputs: Outputs, places: Sequence[Place], limits: CardLimits, sound_of: SoundOf | None
) -> tuple[list[Card], list[str]]:
    """Cards of the samples that can be read, sentences about the others."""
    cards, unreadable = [], []
    for place in places:
        try:
            cards.append(make_card(outputs.read_members(place), place, limits, sound_of))
        except UNREADABLE as error:
            unreadable.append(_unreadable(place, error))
    return cards, unreadable


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())


# --- text -------------------------------------------------------------------------------------


def _sample_lines(outputs: Outputs, place: Place) -> list[str]:
    try:
        members = outputs.read_members(place)
        lines = [plain_text(line) for line in _described(decode(members), members, place)]
        lines += sample_lines(outputs.out, place.key)
        return [lines[0], *(f"    {line}" for line in lines[1:])]
    except UNREADABLE as error:
        return [_unreadable(place, error)]


def _unreadable(place: Place, error: BaseException) -> str:
    said = plain_text(str(error)) or type(error).__name__
    return f"{plain_text(place.key)} in {place.shard} cannot be read: {said}"


def _described(sample: Sample, members: dict[str, bytes], place: Place) -> Iterator[str]:
    meta = sample.meta
    source, quality = meta["source"], meta["quality"]
    numerator, denominator = map(int, meta["fps"].split("/"))
    seconds = meta["frames"] * denominator / numerator
    labels = ", ".join(map(str, meta["label_names"] or meta["labels"] or [])) or "no label"
    yield f"{meta['key']}  {labels}  {' '.join(meta['splits'])}"
    yield f"in       {place.shard}.tar at {place.offset}, {_sizes(members)}"
    yield (
        f"clock    {meta['frames']} intervals of {denominator}/{numerator} s = {seconds:.2f} s "
        f"from {meta['t0']:.3f} s; {len(meta['held'])} held, {len(meta['padded'])} stretches padded"
    )
    if "reference_key" in meta["extra"]:
        recipe = recipe_of(meta["key"], meta["extra"])
        yield f"recipe   {recipe}; from {meta['extra']['reference_key']}"
    yield f"arrays   {sample!r}"
    size = f" {source['width']}x{source['height']}" if source.get("width") else ""
    yield f"source   {source.get('uri')}{size}"
    facts = ", ".join(f"{name} {value}" for name, value in quality.items() if value is not None)
    yield f"quality  {facts}"
    for face in meta["faces"]:
        yield f"face {face['track']}   {_states(face['state'])}"
    if "landmarks.npy" in members and not meta["faces"]:
        yield "face     none was found"
    if meta.get("transcript"):
        yield f"said     {meta['transcript']}"


def _sizes(members: dict[str, bytes]) -> str:
    return ", ".join(f"{name} {len(data) / 1e3:.1f} kB" for name, data in members.items())


def _states(states: list[Any]) -> str:
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    return ", ".join(f"{state} {count}" for state, count in counts.items())
