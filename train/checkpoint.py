"""One file a checkpoint: written atomically, found again, loaded without pickle.

    RUN/checkpoints/step-00000500.pt    weights, optimiser, RNG of all ranks, position, config
    RUN/checkpoints/last, best          the name of the newest, and of the best on held-out clips

A file is complete before it has its name, and `last` is written after it, so a crash at any moment
leaves the one before. Whatever a checkpoint holds, `torch.load(weights_only=True)` reads it.
"""

import logging
import os
import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import torch

from train.elsewhere import local
from train.errors import TrainError, UsageError

log = logging.getLogger(__name__)

FORMAT = 1
LAST, BEST = "last", "best"
MAX_DIFF_CHARACTERS, MAX_NAMES = 200_000, 100
"""Of the uncommitted changes, and of the files that git does not know."""
DAMAGE = (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError,
          zipfile.BadZipFile)  # fmt: skip
"""What torch.load raises for a file that is cut short or is no checkpoint."""


class DamagedCheckpointError(TrainError):
    """A file that cannot be read as a checkpoint."""


def save(folder: Path, step: int, content: dict[str, Any], keep: int, best: bool = False) -> Path:
    """Write a checkpoint, point `last` at it, remove the oldest beyond `keep`.

    Args:
        folder: RUN/checkpoints.
        step: finished steps.
        content: tensors, numbers, strings, and lists and dicts of them.
        keep: how many stay, the new one included; the best one stays beside them.
        best: point `best` at it, too.

    Raises:
        OSError: it cannot be written, such as on a full disk; those before it are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    temporary = path.with_suffix(".tmp")
    try:
        _write(temporary, {**content, "format": FORMAT, "step": step})
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # half of it would keep a full disk full
        raise
    write_atomically(folder / LAST, path.name + "\n")
    if best:
        write_atomically(folder / BEST, path.name + "\n")
    kept = (path, _pointed_at(folder, BEST))
    for old in checkpoints(folder)[:-keep]:
        if old not in kept:
            old.unlink()
    return path


def _write(path: Path, content: dict[str, Any]) -> None:
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # What torch says about the end of its archive hides what the disk said before.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, text: str) -> None:
    """A text file that is either the old or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    descriptor = os.open(path.parent, os.O_RDONLY)  # the name, too, must survive a power cut
    os.fsync(descriptor)
    os.close(descriptor)


def checkpoints(folder: Path) -> list[Path]:
    """All of a run, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; None where there is none yet.

    Raises:
        DamagedCheckpointError: there are some, and all are damaged.
    """
    last = _pointed_at(folder, LAST)
    older = [path for path in reversed(checkpoints(folder)) if path != last]
    # A file newer than `last` was complete before the crash that kept `last` from naming it.
    newer = [path for path in older if last and path.name > last.name]
    candidates = [*newer, *([last] if last else []), *(p for p in older if p not in newer)]
    for path in candidates:
        try:
            content = load(path)
        except DamagedCheckpointError as error:
            log.warning("%s; looking at the one before", error)
            continue
        return content
    if candidates:
        raise DamagedCheckpointError(
            f"none of the {len(candidates)} checkpoints in {folder} can be read; remove the folder "
            "to start from the beginning"
        )
    return None


def best(folder: Path) -> dict[str, Any]:
    """The checkpoint that `best` names.

    Raises:
        UsageError: there is none.
        DamagedCheckpointError: it cannot be read.
    """
    path = _pointed_at(folder, BEST)
    if path is None:
        raise UsageError(f"there is no best checkpoint in {folder}")
    return load(path)


def chosen(path: Path) -> Path:
    """The file that a downstream task takes: of a run's folder `best`, or else the newest.

    Raises:
        UsageError: there is no such file, or the run has no checkpoint yet.
    """
    path = local(path)
    if path.is_dir():
        folder = path / "checkpoints"
        found = _pointed_at(folder, BEST) or _pointed_at(folder, LAST)
        if found is None:
            raise UsageError(f"{path} has no checkpoint; name a run's folder, or a file step-*.pt")
        return found
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}")
    return path


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint to the CPU.

    Args:
        path: a checkpoint, or a run's folder, of which the newest is taken; also on a store.

    Raises:
        UsageError: there is no such file.
        DamagedCheckpointError: it is cut short or is no checkpoint of this program.
    """
    path = local(path)
    if path.is_dir():
        found = newest(path / "checkpoints")
        if found is None:
            raise UsageError(f"{path} has no checkpoint yet")
        return found
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        reason = str(error).split(". ")[0].splitlines()[0][:200] if str(error) else "empty"
        raise DamagedCheckpointError(f"{path} cannot be read ({reason})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or "model" not in content:
        raise DamagedCheckpointError(f"{path} is no checkpoint of this trainer (format {FORMAT})")
    return content


def copy_weights(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> list[str]:
    """Copy what fits by name and shape.

    Returns:
        A line for every name that did not match.
    """
    own = module.state_dict()
    fitting = {
        name: tensor
        for name, tensor in weights.items()
        if name in own and own[name].shape == tensor.shape
    }
    module.load_state_dict(fitting, strict=False)
    return [
        *(f"{name}: not in the checkpoint" for name in own if name not in weights),
        *(f"{name}: not in this model" for name in weights if name not in own),
        *(
            f"{name}: {tuple(weights[name].shape)} in the checkpoint, {tuple(own[name].shape)} here"
            for name in weights
            if name in own and name not in fitting
        ),
    ]


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's generators on this rank."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """The inverse of `random_state`; a GPU's state is skipped where there is none."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def git_state() -> dict[str, Any]:
    """Commit, uncommitted changes and names of unknown files; empty outside a checkout."""
    diff = _git("diff", "HEAD", "--no-color", "--no-ext-diff")
    if len(diff) > MAX_DIFF_CHARACTERS:
        more = len(diff) - MAX_DIFF_CHARACTERS
        diff = f"{diff[:MAX_DIFF_CHARACTERS]}\n... {more} characters more are not recorded\n"
    names = _git("ls-files", "--others", "--exclude-standard", "--full-name", ":/").splitlines()
    more_names = [f"... and {len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else []
    return {
        "commit": _git("rev-parse", "HEAD").strip(),
        "diff": diff,
        "untracked": names[:MAX_NAMES] + more_names,
    }


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def _pointed_at(folder: Path, pointer: str) -> Path | None:
    """The checkpoint a pointer file names, if both are there."""
    try:
        path = folder / Path((folder / pointer).read_text().strip()).name
    except OSError:
        return None
    return path if path.is_file() else None
