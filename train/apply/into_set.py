"""`train embed --into-set NAME`: features become a field of the set that they were made of.

The pipeline writes side shards, for features as for crops, so it is asked to: `python -m pipeline
add-field SET NAME --features FOLDER`.
"""

import subprocess
import sys
from pathlib import Path

from train.apply.videos import CHECKOUT
from train.errors import IncompleteError, UsageError
from train.index import ShardSet


def require_addable(shard_set: ShardSet, name: str) -> None:
    """Refuse what the pipeline could not add to, before anything is computed.

    Raises:
        UsageError: the set is not on this machine.
    """
    if not shard_set.store.is_local:
        raise UsageError(
            f"--into-set {name} writes beside the shards, and {shard_set.store} is elsewhere; "
            "embed the set where it was made, or use --out and there `python -m pipeline add-field "
            f"OUT {name} --features FOLDER`"
        )


def add_to_set(shard_set: ShardSet, name: str, parts: Path, overwrite: bool) -> list[str]:
    """Write the field from the parts of all ranks.

    Args:
        shard_set: what the features are of.
        name: of the field.
        parts: folder with a Parquet a shard.
        overwrite: replace a field that was made otherwise.

    Returns:
        What the pipeline said.

    Raises:
        UsageError: it refused the name, or a field of that name is another one.
        IncompleteError: it could not write all.
    """
    command = [
        sys.executable, "-m", "pipeline", "add-field", str(Path(str(shard_set.store)).absolute()),
        name, "--features", str(parts.absolute()), "--executor", "local",
        *(["--overwrite"] if overwrite else []),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=CHECKOUT, text=True, check=False, capture_output=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-1000:]
        kind = UsageError if done.returncode == UsageError.exit_code else IncompleteError
        raise kind(f"`python -m pipeline add-field` ended with {done.returncode}: {said}")
    return [*done.stdout.strip().splitlines(), f"{parts} is no longer needed"]
