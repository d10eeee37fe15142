"""A ROOT in a bucket: listed there, its annotations copied here, its media left where they are.

    s3://bucket/raw -> (folder with copies of the annotations, Listing of everything)

Adapters then work as on a folder. The manifest's root is the address; the pipeline fetches each
media file when its turn comes (pipeline/staging.py).
"""

from __future__ import annotations

from pathlib import Path

from manifests.dataset import Dataset
from manifests.errors import UsageError
from manifests.listing import SIDE_KINDS, Listing, of_store
from stores import is_remote, open_objects
from stores.copies import Copies
from stores.errors import AddressError, RefusedStoreError
from stores.objects import ObjectStore
from stores.scratch import folder_for, scratch_folder

ANNOTATION_KINDS = SIDE_KINDS | {".h5"}
"""What adapters read beside the media."""


def located(dataset: Dataset, address: str, scratch: str | None = None) -> tuple[Path, Listing]:
    """A remote root as adapters take it.

    Args:
        dataset: whose files these are; one without annotations gets no copies.
        address: s3:// or gs://.
        scratch: where copies are kept; default: see `stores.scratch`.

    Raises:
        UsageError: the address is wrong, or the store refuses.
        StoreError: the store cannot be reached.
    """
    store = open_root(address)
    try:
        folder = folder_for(scratch_folder(scratch), "roots", str(store))
        objects = store.list()
    except (AddressError, RefusedStoreError) as error:
        raise UsageError(str(error)) from error
    listing = of_store(folder, str(store), objects)
    if dataset.annotations:
        names = {e.path for e in (*listing.side, *listing.files) if e.suffix in ANNOTATION_KINDS}
        wanted = [entry for entry in objects if entry.name in names]
        Copies(store, folder).refresh(wanted)
    return folder, listing


def open_root(address: str) -> ObjectStore:
    """The store of a root; nothing is read yet.

    Raises:
        UsageError: the address is wrong.
    """
    try:
        return open_objects(address, what="--root")
    except AddressError as error:
        raise UsageError(str(error)) from error


def local_copy(address: str, what: str, scratch: str | None = None) -> Path:
    """A file that was named, fetched if it is elsewhere.

    Args:
        address: a path, or s3:// or gs://.
        what: the flag that named it, for messages.
        scratch: where the copy is kept.

    Raises:
        UsageError: there is no such file, the address is wrong, or the store refuses.
        StoreError: the store cannot be reached.
    """
    if not is_remote(address):
        return Path(address)
    place, _, name = address.rpartition("/")
    try:
        store = open_objects(place, what=what)
        folder = folder_for(scratch_folder(scratch), "files", place)
        store.fetch(name, folder / name)
    except (AddressError, RefusedStoreError) as error:
        raise UsageError(str(error)) from error
    except FileNotFoundError as error:
        raise UsageError(f"{what} {address} does not exist; give the address of a file") from error
    return folder / name
