"""Fields that were added to a finished set: what they hold, where they lie, which are there.

    OUT/fields/FIELD/field.json            what it is, of what it was made, and the versions
    OUT/fields/FIELD/shards/NAME.tar       side shard: the samples of shards/NAME.tar in the same
    OUT/fields/FIELD/shards/NAME.json      order, with members BASE.FIELD.ext; and its sidecar
    OUT/fields/FIELD/samples.parquet       where each lies
    OUT/fields/FIELD/errors.parquet        samples of the set that have no such field, and why
    OUT/fields/FIELD/table.parquet         a field of numbers: key and value, instead of shards
    OUT/fields/FIELD/shardindex.json       written last; `fields` of OUT/shardindex.json names it

A side shard belongs to one version of its base shard: the sha256 of that tar is in its fingerprint.
"""

import contextlib
import dataclasses
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from manifests.errors import UsageError
from pipeline.config import ShardConfig, canonical_hash
from pipeline.format import FIELD_NAME, FIELD_SCHEMA
from pipeline.mirror import FIELDS

FOLDER = FIELDS

Kind = Literal["lip", "face", "landmarks", "mel", "features", "number"]
Origin = Literal["stored", "source"]
CROPS: dict[str, str] = {"lip": "mjpeg", "face": "mjpeg", "landmarks": "npy"}
"""Fields of faces, by name, and the ending of their member."""


@dataclass(frozen=True)
class FieldConfig:
    """What a field holds; everything that changes its bytes, beside the samples themselves."""

    field: str
    """Its name."""
    kind: Kind
    base: ShardConfig
    """Of the set."""
    origin: Origin = "stored"
    """Made from what the samples store, or from the source files again."""
    mel_rate_hz: int | None = None
    """Of a `mel`: the rate of the waveform under it; the hop follows, three slices a frame."""
    features: tuple[str, ...] = ()
    """Columns of features, one member each."""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Of features: checkpoint, window and so on, as `train embed` states them."""
    parts: str = ""
    """Of features: the folder of Parquet files they come from; no part of the content."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not FIELD_NAME.fullmatch(self.field):
            raise ValueError(
                f"a field's name is {self.field!r}; expected small letters, digits and _, at most "
                "32, a letter first"
            )
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind is {self.kind!r}; expected one of {get_args(Kind)}")

    @property
    def members(self) -> tuple[str, ...]:
        """Extensions of a side sample, in the order they are written; a number has none."""
        name = self.field
        if self.kind == "number":
            return ()
        if self.kind == "features":
            return (f"{name}.json", *(f"{name}.{feature}.npy" for feature in self.features))
        return (f"{name}.json", f"{name}.{CROPS.get(self.kind, 'npy')}")

    def as_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "field": self.field,
            "kind": self.kind,
            "base": self.base.as_dict(),
            "origin": self.origin,
            "mel_rate_hz": self.mel_rate_hz,
            "features": list(self.features),
            "facts": dict(self.facts),
            "parts": self.parts,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "FieldConfig":
        """The inverse of `as_dict`."""
        base = ShardConfig.from_dict(stored["base"])
        return cls(**{**stored, "base": base, "features": tuple(stored["features"])})

    def content(self) -> dict[str, Any]:
        """What the bytes depend on."""
        return {name: value for name, value in self.as_dict().items() if name != "parts"}


def stored_field(
    config: FieldConfig, base_config_hash: str, flags: Sequence[str]
) -> dict[str, Any]:
    """field.json.

    Args:
        config: of the field.
        base_config_hash: of the set.
        flags: of the `add-field` command that makes the field; no part of the content.
    """
    from pipeline.prepare import landmarks_sha256, versions

    model = landmarks_sha256() if config.kind in CROPS else None
    content = {
        "schema": FIELD_SCHEMA,
        "config": config.content(),
        "base_config_hash": base_config_hash,
        "landmarks_sha256": model,
    }
    hashed = {**content, "config_hash": canonical_hash(content)}
    return {**hashed, "versions": versions(), "flags": list(flags)}


def folder_of(out: Path, name: str) -> Path:
    """Where a field lies."""
    return out / FOLDER / name


def known_fields(out: Path) -> dict[str, dict[str, Any]]:
    """The fields whose index is there, as OUT/shardindex.json names them.

    One whose index cannot be read is left out, and `verify` says so: it must not keep the index of
    the set from being written.
    """
    found = {}
    for path in sorted((out / FOLDER).glob("*/shardindex.json")):
        data = path.read_bytes()
        try:
            index = json.loads(data)
            found[index["field"]] = {
                "index": path.relative_to(out).as_posix(),
                "sha256": hashlib.sha256(data).hexdigest(),
                "kind": index["kind"],
                "members": index["members"],
                "samples": index["counts"]["samples"],
                "errors": index["counts"]["errors"],
            }
        except (ValueError, KeyError, TypeError):
            continue
    return found


def with_fields(index: dict[str, Any], out: Path) -> dict[str, Any]:
    """An index of a set that names its fields; a set without any has no word of them."""
    plain = {name: value for name, value in index.items() if name != "fields"}
    fields = known_fields(out)
    return {**plain, "fields": fields} if fields else plain


def command(out: Path, name: str) -> str:
    """What makes, or mends, a field: with the flags that it was made with, where they are known."""
    flags: list[str] = []
    with contextlib.suppress(UsageError, KeyError):
        flags = (read_field(out, name) or {})["flags"]
    return " ".join(["python -m pipeline add-field", *map(shlex.quote, [str(out), name, *flags])])


def read_field(out: Path, name: str) -> dict[str, Any] | None:
    """field.json of a field; None where there is none.

    Raises:
        UsageError: it cannot be read.
    """
    path = folder_of(out, name) / "field.json"
    try:
        stored: dict[str, Any] = json.loads(path.read_bytes())
        stored["config"], stored["config_hash"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}); remove the folder {path.parent} and add the field "
            "again"
        ) from error
    return stored
