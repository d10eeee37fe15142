"""Takes the bytes of clips that were taken back out of tars and sidecars.

The new tar is the one the shard's job would write today, which leaves these rows out: the samples
that stay are copied byte for byte, so it has the same hash as one made anew. The sidecar names the
rows it lacks and keeps its fingerprint, so that the shard is still committed; it keeps the hashes
of the tars it was, too: what is known of their clips holds for those that stay.

The new sidecar waits as NAME.json.next while the tar is replaced, and takes its place then. After a
crash between the two `finish_interrupted` puts it there, so that no neighbour of a purged clip has
to be made again, whose source may be gone.
"""

import json
import tarfile
import uuid
from pathlib import Path
from typing import IO, Any

from pipeline import remote
from pipeline.check import file_hash
from pipeline.format import FormatError
from pipeline.outputs import Outputs
from pipeline.plan import PlannedShard
from pipeline.prepare import Prepared
from pipeline.shard import HashedStream, open_new, to_disk

COPY_BYTES = 1 << 20
NEXT = ".next"
"""Behind the name of a sidecar that waits until its tar is in place."""


def purge_shards(prepared: Prepared, keys: frozenset[str]) -> tuple[int, list[str]]:
    """Rewrite every shard that holds, or holds an error of, one of these rows.

    Args:
        prepared: the folder, its tombstones written.
        keys: of rows that have a tombstone.

    Returns:
        How many shards were rewritten, and a sentence on each that is damaged and was left alone.
    """
    rewritten, damaged = 0, []
    for shard in prepared.plan.shards:
        gone = prepared.account.dropped_of(shard.name) & keys
        if gone:
            try:
                rewritten += _purge(prepared, shard, gone)
            except FormatError as error:
                damaged.append(str(error))
    return rewritten, damaged


def _purge(prepared: Prepared, shard: PlannedShard, gone: frozenset[str]) -> bool:
    """Rewrite one shard.

    Returns:
        Whether it had to be.

    Raises:
        FormatError: the tar is gone, or not the one the sidecar describes.
    """
    out, files = prepared.out, Outputs(prepared.out)
    path = files.sidecar_path(shard.name)
    if not path.exists():
        remote.forget(out, f"shards/{shard.name}.tar")  # a crash left it; it is made again anyhow
        return False
    sidecar = files.sidecar(shard.name)
    stored: dict[str, Any] = json.loads(path.read_bytes())
    assert sidecar is not None
    if gone.isdisjoint(entry["key"] for entry in [*sidecar.samples, *sidecar.errors]):
        return False
    stored["errors"] = [entry for entry in sidecar.errors if entry["key"] not in gone]
    absent = gone.union(sidecar.left_out)
    rows = prepared.rows.of_shard(shard, ["key"])["key"].to_pylist()
    stored["left_out"] = [key for key in rows if key in absent]
    kept = [entry for entry in sidecar.samples if entry["key"] not in gone]
    if len(kept) == len(sidecar.samples):
        remote.write(out, f"shards/{shard.name}.json", _as_text(stored))
        return True
    stored["purged_from"] = [*sidecar.purged_from, sidecar.sha256]
    with files.local_tar(shard.name) as tar:
        if _sha256(tar) != sidecar.sha256:
            wrong = "not the one its sidecar describes" if tar.is_file() else "gone"
            raise FormatError(
                f"{files.tar_path(shard.name)} is {wrong}, so nothing could be purged from it: "
                "run the `python -m pipeline shards` command of this set after removing both, then "
                "drop the clips again"
            )
        _rewrite(out, tar, kept, stored)
    return True


def waiting_shards(out: Path) -> set[str]:
    """Shards whose purge was stopped before their new sidecars took their places."""
    folder = Outputs(out).shards
    return {path.name.removesuffix(f".json{NEXT}") for path in folder.glob(f"*.json{NEXT}")}


def finish_interrupted(out: Path) -> None:
    """Take over the sidecars of purges that were killed between tar and sidecar.

    Without it the shard would look damaged and be made anew, and clips without a source lost. Call
    it under `remote.alone`, after the pull: tasks of a job array start together.
    """
    for shard in sorted(waiting_shards(out)):
        name = f"shards/{shard}.json"
        sidecar = (out / f"{name}{NEXT}").read_bytes()
        with Outputs(out).local_tar(shard) as tar:
            is_new = _sha256(tar) == json.loads(sidecar)["sha256"]
        if is_new:  # or the old tar is still there, with its own sidecar
            remote.write(out, name, sidecar)
        remote.forget(out, f"{name}{NEXT}")


def _sha256(tar: Path) -> str:
    """Of a tar; empty where there is none."""
    return file_hash(tar, "sha256") if tar.is_file() else ""


def _as_text(sidecar: dict[str, Any]) -> bytes:
    return json.dumps(sidecar, separators=(",", ":")).encode()


def _rewrite(out: Path, tar: Path, samples: list[dict[str, Any]], sidecar: dict[str, Any]) -> None:
    """Replace a tar by one of these of its samples, and its sidecar after it.

    Args:
        out: folder of the set.
        tar: as it is, on this machine.
        samples: entries of its sidecar that stay.
        sidecar: the new one, but for what follows from the tar.
    """
    temporary = tar.with_name(f"{tar.name}.tmp-{uuid.uuid4().hex}")
    try:
        with tar.open("rb") as old, open_new(temporary) as new:
            stream = HashedStream(new)
            moved = [_copied(old, stream, entry) for entry in samples]
            end = 2 * tarfile.BLOCKSIZE
            stream.write(bytes(end + -(stream.written + end) % tarfile.RECORDSIZE))
            to_disk(new)
        text, name = _as_text(sidecar | _facts(stream, moved)), f"shards/{tar.stem}.json"
        remote.write(out, f"{name}{NEXT}", text)
        remote.put(out, temporary, tar.stem)
        remote.write(out, name, text)
        remote.forget(out, f"{name}{NEXT}")
    finally:
        temporary.unlink(missing_ok=True)


def _facts(stream: HashedStream, moved: list[dict[str, Any]]) -> dict[str, Any]:
    """What changes in the sidecar of a tar that is written anew."""
    return {
        "nsamples": len(moved),
        "filesize": stream.written,
        "md5": stream.md5.hexdigest(),
        "sha256": stream.sha256.hexdigest(),
        "seconds": round(sum(entry["seconds"] for entry in moved), 6),
        "samples": moved,
    }


def _copied(old: IO[bytes], new: HashedStream, entry: dict[str, Any]) -> dict[str, Any]:
    """Copy one sample's members as they stand; its entry with the new places."""
    shift = new.written - entry["offset"]
    old.seek(entry["offset"])
    left = entry["size"]
    while left:
        piece = old.read(min(left, COPY_BYTES))
        new.write(piece)
        left -= len(piece)
    members = {name: [offset + shift, size] for name, (offset, size) in entry["members"].items()}
    return {**entry, "offset": entry["offset"] + shift, "members": members}
