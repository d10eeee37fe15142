"""An exported checkpoint: weights without pickle, and what it takes to build the network again.

    FOLDER/model.safetensors    all weights of the method's module, by name
    FOLDER/config.json          method, its config, what it was trained on; written last
    FOLDER/README.md            the same for people

`train.load_checkpoint(FOLDER)` reads it; `train.apply.export` writes it.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from train.checkpoint import DamagedCheckpointError, write_atomically
from train.errors import UsageError

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FORMAT = 1


def is_exported(path: Path) -> bool:
    """Whether a folder holds exported weights."""
    return (path / WEIGHTS).is_file()


def write(folder: Path, facts: dict[str, Any], weights: dict[str, Tensor], card: str) -> None:
    """Write the three files.

    Args:
        folder: made if it is not there.
        facts: JSON types; `method`, `preset`, `model`, `step` and `shards` at least.
        weights: by name.
        card: Markdown.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{WEIGHTS}.tmp"
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    # Its `save_file` makes files that nobody else may read.
    temporary.write_bytes(save(plain, metadata={"format": "pt"}))
    os.replace(temporary, folder / WEIGHTS)
    write_atomically(folder / CARD, card)
    write_atomically(folder / CONFIG, json.dumps({"format": FORMAT, **facts}, indent=1) + "\n")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """What `write` wrote: facts, weights, and the SHA-256 of the weights' file.

    Raises:
        UsageError: there is no config beside the weights, or it is of another version.
        DamagedCheckpointError: the weights cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        facts = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder / CONFIG} cannot be read ({error}); export the checkpoint again with "
            "`python -m train export`, or copy the whole folder"
        ) from error
    known = {"method", "preset", "model", "step", "shards"}
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or not known <= facts.keys():
        raise UsageError(f"{folder / CONFIG} is no config of an exported checkpoint of this "
                         f"version (format {FORMAT})")  # fmt: skip
    blob = (folder / WEIGHTS).read_bytes()
    try:
        weights = load(blob)
    except SafetensorError as error:
        raise DamagedCheckpointError(f"{folder / WEIGHTS} cannot be read ({error})") from error
    return facts, weights, hashlib.sha256(blob).hexdigest()
