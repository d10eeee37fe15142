"""`python -m train export`: a checkpoint as a folder that can be given away.

    python -m train export --checkpoint runs/first --out exported/first

Writes model.safetensors (all weights, no pickle, no optimiser), config.json and README.md, a model
card with what is known of the training: the sets and their counts, seed, steps, measurements on
held-out clips, and the evaluations in RUN/eval that were made with this very checkpoint. Read it
with

    from train import load_checkpoint
    encoders = load_checkpoint("exported/first")
    features = encoders.features(video, mel)
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.format import MEL_SLICES_PER_FRAME, N_MELS
from train import exported
from train.augment import IMAGENET_MEAN, IMAGENET_STD, PLAIN_SIDE
from train.checkpoint import load
from train.errors import UsageError
from train.evaluation.encoders import SOUND, Encoders, load_checkpoint
from train.facts import HELD_OUT
from train.methods import method_named
from train.session import METRICS, ORIGIN


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and where to."""

    checkpoint: Path
    """A checkpoint, or a run's folder, of which `best`, or else the newest is taken."""
    out: Path
    """Folder that is written; a new one, or one that an earlier export wrote."""


def export(options: ExportOptions) -> list[str]:
    """Write the folder.

    Returns:
        Lines for people.

    Raises:
        UsageError: there is no such checkpoint, or the folder holds something else.
    """
    _require_free(options.out)
    if exported.is_exported(options.checkpoint):
        raise UsageError(f"{options.checkpoint} is an exported checkpoint already; copy the folder")
    encoders = load_checkpoint(options.checkpoint)
    assert encoders.origin is not None
    file = Path(encoders.origin["path"])
    run = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    facts = facts_of(encoders, load(file), run)
    exported.write(options.out, facts, encoders.module.state_dict(), card(facts))
    size = (options.out / exported.WEIGHTS).stat().st_size / 1e6
    return [
        f"{options.out}: {exported.WEIGHTS} ({size:.1f} MB), {exported.CONFIG}, {exported.CARD}",
        f'from train import load_checkpoint; encoders = load_checkpoint("{options.out}")',
    ]


def _require_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; expected a folder")
    if folder.is_dir() and any(folder.iterdir()) and not exported.is_exported(folder):
        raise UsageError(f"--out {folder} holds other files; name a new folder")


def facts_of(encoders: Encoders, saved: dict[str, Any], run: Path) -> dict[str, Any]:
    """What config.json says: all that is known of the checkpoint, no paths of this machine."""
    config = saved["config"]
    origin = encoders.origin or {}
    return {
        "method": encoders.method,
        "preset": encoders.preset,
        "model": json.loads(json.dumps(dataclasses.asdict(encoders.config))),
        "step": int(saved["step"]),
        "shards": ", ".join(_sets(run) or _set_names(config["shards"])),
        "checkpoint_sha256": origin.get("sha256"),
        "parameters": sum(weight.numel() for weight in encoders.module.parameters()),
        "features": encoders.channels,
        "input": _input_of(encoders),
        "training": {
            "sets": _sets(run),
            "split": config["split"],
            "seed": config["seed"],
            "batch_size": config["batch_size"],
            "lr": config["lr"],
            "epochs_done": (saved.get("position") or {}).get("epoch"),
            "commit": (saved.get("git") or {}).get("commit") or None,
            "uncommitted_changes": bool((saved.get("git") or {}).get("diff")),
            "torch": saved.get("torch"),
            "held_out": _held_out(run, int(saved["step"])),
        },
        "evaluations": _evaluations(run, origin.get("sha256")),
    }


def _input_of(encoders: Encoders) -> dict[str, Any]:
    """What the network is given."""
    return {
        "fps": method_named(encoders.method).fps,
        "frames": encoders.frames,
        "crop": encoders.crop,
        "centre_crop_share": PLAIN_SIDE,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "sound": _heard(encoders),
        "mel_bands": N_MELS,
        "mel_slices_per_frame": MEL_SLICES_PER_FRAME,
    }


def _heard(encoders: Encoders) -> str:
    """What `features` takes as sound, in words; empty for encoders of pictures alone."""
    if SOUND not in encoders.channels:
        return ""
    if encoders.sound == "mel":
        return (
            "`sound` is the natural logarithm of mel power, "
            f"(B, {N_MELS}, {MEL_SLICES_PER_FRAME} T), as GLAV's shards hold it"
        )
    rate_hz, channels = encoders.sound
    return f"`sound` is a waveform in -1 .. 1, (B, {channels}, samples) at {rate_hz} Hz"


def _set_names(shards: str) -> list[str]:
    """The last part of each address of a mixture; what a run without an origin.json still tells."""
    entries = [entry.strip().partition("@")[0] for entry in shards.split(",") if entry.strip()]
    return [entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries]


def _sets(run: Path) -> dict[str, Any]:
    """Of each training set clips, shards and hashes, as the run recorded them; {} if it did not."""
    origin = _json(run / ORIGIN) or {}
    return {
        name: {key: value for key, value in facts.items() if key != "path"}
        for name, facts in (origin.get("sets") or {}).items()
    }


def _held_out(run: Path, step: int) -> dict[str, float]:
    """Measurements on held-out clips at the checkpoint's own step; {} where there are none."""
    try:
        lines = (run / METRICS).read_text().splitlines()
    except OSError:
        return {}
    rows = [json.loads(line) for line in lines if HELD_OUT in line]
    return {
        name.removeprefix(HELD_OUT): value
        for row in rows
        if row.get("step") == step
        for name, value in row.items()
        if name.startswith(HELD_OUT) and isinstance(value, int | float)
    }


def _evaluations(run: Path, sha256: str | None) -> list[dict[str, Any]]:
    """Results of this very checkpoint."""
    found = []
    for path in sorted((run / "eval").glob("*/result.json")):
        result = _json(path) or {}
        if sha256 and (result.get("checkpoint") or {}).get("sha256") == sha256:
            named = ("task", "dataset", "protocol", "metric", "n_scored", "n_expected", "notes")
            found.append({name: result.get(name) for name in named})
    return found


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


# --- the card -----------------------------------------------------------------------------------


def card(facts: dict[str, Any]) -> str:
    """The model card, in Markdown; says only what is recorded, and what is not."""
    training = facts["training"]
    lines = [
        f"# {facts['method']} {facts['preset']}, step {facts['step']:,}",
        "",
        f"{'Audio-visual' if facts['input']['sound'] else 'Visual'} encoders, "
        f"{facts['parameters']:,} parameters, trained with GLAV by the "
        f"method `{facts['method']}`.",
        "",
        "```python",
        "from train import load_checkpoint",
        'encoders = load_checkpoint("this/folder")',
        f"features = encoders.features(video, {'sound' if facts['input']['sound'] else 'None'})",
        "```",
        "",
        *_input_lines(facts),
        "",
        "## Trained on",
        "",
        *_training_lines(facts, training),
        "",
        "## Measured",
        "",
        *_measured_lines(facts, training["held_out"]),
        "",
        "## Terms",
        "",
        "No licence is stated by the program that wrote this page. The terms of the training "
        "data named above are those of whoever made it; say here what holds before giving the "
        "weights away.",
    ]
    return "\n".join(lines) + "\n"


def _input_lines(facts: dict[str, Any]) -> list[str]:
    given = facts["input"]
    rate = f" at {given['fps']:g} frames a second" if given["fps"] else ""
    features = ", ".join(f"`{name}` {c}" for name, c in facts["features"].items())
    sound = f"; {given['sound']}. Either may be None" if given["sound"] else ""
    return [
        f"`video` is float (B, 3, T, {given['crop']}, {given['crop']}){rate}, the middle "
        f"{given['centre_crop_share']:.1%} of the short side, RGB normalised by mean "
        f"{list(given['mean'])} and deviation {list(given['std'])}{sound}. It was trained with T = "
        f"{given['frames']}.",
        "",
        f"Features and their channels: {features}. `python -m train embed` makes them of videos "
        "and of shards.",
    ]


def _training_lines(facts: dict[str, Any], training: dict[str, Any]) -> list[str]:
    sets = [
        f"- {name}: {one['clips']:,} clips in {one['shards']:,} shards, "
        f"{one['clips_per_epoch']:,} an epoch"
        for name, one in training["sets"].items()
        if {"clips", "shards", "clips_per_epoch"} <= one.keys()
    ] or [f"- {facts['shards'] or 'not recorded'} (counts are not recorded)"]
    changed = " with uncommitted changes" if training["uncommitted_changes"] else ""
    return [
        *sets,
        f"- split {training['split']}, {facts['step']:,} steps, seed {training['seed']}, peak "
        f"learning rate {training['lr']}",
        f"- code {training['commit'] or 'not recorded'}{changed}, torch {training['torch']}",
    ]


def _measured_lines(facts: dict[str, Any], held_out: dict[str, float]) -> list[str]:
    lines = [f"- held-out clips, {name}: {value:.4f}" for name, value in held_out.items()]
    for one in facts["evaluations"]:
        metric = one["metric"]
        interval = (
            f" [{metric['low']:.4f}, {metric['high']:.4f}]" if metric["low"] is not None else ""
        )
        lines.append(
            f"- {one['task']} ({one['protocol']}), {metric['name']}: {metric['value']:.4f}"
            f"{interval}, {one['n_scored']:,} of {one['n_expected']:,} clips"
        )
        lines += [f"  - {note}" for note in one["notes"] or []]
    return lines or ["Nothing was measured with this checkpoint, as far as its run recorded."]
