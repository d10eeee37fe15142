"""Rows of mended files that `pipeline retry` has made already: `pipeline shards` leaves them alone.

A mended file has another size, so its row comes changed from the manifest, and shards with changed
rows are made again. Not so where a patch has made the row from the file as it is today: the sample
says how large its file was. Such a row keeps the size it was planned with, and with it its shards.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.outputs import Outputs
from pipeline.plan import Patch


def as_planned(files: Outputs, planned: pa.Table, rows: pa.Table) -> pa.Table:
    """Rows of today, those that a patch has made from today's file with their planned sizes.

    Args:
        files: of the set.
        planned: its rows that have a shard.
        rows: manifest rows as the data set gives them today.

    Raises:
        FormatError: a patch's sidecar is damaged.
    """
    keys = pa.array([key for patch in files.plan.patches for key in patch.keys], pa.string())
    if not len(keys):
        return rows
    places = pa.table({
        "key": keys,
        "before": pc.index_in(keys, value_set=planned["key"].combine_chunks()),
        "now": pc.index_in(keys, value_set=rows["key"].combine_chunks()),
    }).drop_null()  # fmt: skip
    before = planned["bytes"].take(places["before"]).to_pylist()
    now = rows["bytes"].take(places["now"]).to_pylist()
    sizes = zip(places["key"].to_pylist(), before, now, strict=True)
    other = {key: new for key, old, new in sizes if old != new}
    made = _sizes_in_patches(files, set(other))
    same = pa.array([key for key, size in other.items() if made.get(key) == size], pa.string())
    return _with_sizes_of(planned, rows, same)


def _sizes_in_patches(files: Outputs, keys: set[str]) -> dict[str, Any]:
    """Bytes of the file that each sample of a patch was made from."""
    patches = [patch for patch in files.plan.patches if keys.intersection(patch.keys)]
    return {key: size for patch in patches for key, size in _sizes(files, patch).items()}


def _sizes(files: Outputs, patch: Patch) -> dict[str, Any]:
    sidecar = files.sidecar(patch.name)
    if sidecar is None or sidecar.fingerprint != patch.fingerprint:
        return {}
    return {sample["key"]: sample["source"].get("bytes") for sample in sidecar.samples}


def _with_sizes_of(planned: pa.Table, rows: pa.Table, keys: pa.Array) -> pa.Table:
    """`rows` with the sizes that some of them have in `planned`."""
    here = np.asarray(pc.is_in(rows["key"].combine_chunks(), value_set=keys))
    before = pc.index_in(rows["key"].filter(here), value_set=planned["key"].combine_chunks())
    sizes = planned["bytes"].take(before).combine_chunks()
    at = rows.schema.get_field_index("bytes")
    mixed = pc.replace_with_mask(rows["bytes"].combine_chunks(), here, sizes)
    return rows.set_column(at, rows.schema.field(at), mixed)
