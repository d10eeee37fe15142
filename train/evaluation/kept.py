"""The fine-tuned model of a round, kept for `train predict`: ROUND/model.pt.

One file, read with `weights_only`: the weights of encoders and head, and all that it takes to build
them again and to look at clips as the task did.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from train import checkpoint
from train.config import from_dict
from train.errors import TrainError, UsageError
from train.evaluation.encoders import Encoders
from train.evaluation.heads import Classifier
from train.evaluation.task import Settings
from train.methods import method_named

if TYPE_CHECKING:
    from train.evaluation.job import Job

MODEL = "model.pt"
FORMAT = 1
Output = Literal["classes", "text"]
"""What logits mean: a class of the window (or of each of its frames), or characters by CTC."""


@dataclass(frozen=True)
class Kept:
    """A fine-tuned model and how it looks at clips."""

    model: Classifier
    """On the CPU, in evaluation mode."""
    encoders: Encoders
    """Those inside the model: `frames`, `crop`."""
    task: str
    round: str
    settings: Settings
    classes: tuple[str, ...]
    """Names by number."""
    output: Output
    shards: dict[str, Any]
    """The pipeline's configuration of the set it learned from: profile, fps, faces, ..."""


def keep(job: "Job", model: Classifier, output: Output = "classes") -> None:
    """Write the model of a round beside its predictions, unless nobody wants it.

    Args:
        job: the round.
        model: as it is scored.
        output: what its logits mean.
    """
    if not job.config.keep_model:
        (job.folder / MODEL).unlink(missing_ok=True)  # of another training
        return
    source = job.source
    content = {
        "format": FORMAT,
        "task": job.task.name,
        "round": job.round.name,
        "settings": _plain(dataclasses.asdict(job.settings)),
        "classes": list(job.classes),
        "output": output,
        "shards": _plain(job.labelled.shard_set.config),
        "method": source.method,
        "preset": source.preset,
        "config": _plain(dataclasses.asdict(source.config)),
        "origin": _plain(source.origin),
        "head": dataclasses.asdict(model.shape),
        "model": {name: tensor.cpu() for name, tensor in model.state_dict().items()},
    }
    temporary = job.folder / f"{MODEL}.tmp"
    torch.save(content, temporary)
    temporary.replace(job.folder / MODEL)


def load(path: Path) -> Kept:
    """Read a kept model.

    Raises:
        UsageError: there is none, or it is of another version.
        TrainError: it cannot be read.
    """
    if not path.is_file():
        raise UsageError(
            f"there is no {path}: evaluations with --protocol finetune keep their model, but not "
            "those of ave, and none with --no-keep-model. Do it again with --overwrite"
        )
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except checkpoint.DAMAGE as error:
        raise TrainError(f"{path} cannot be read ({str(error).splitlines()[0][:200]})") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT or "head" not in saved:
        raise UsageError(f"{path} is no model that an evaluation kept (format {FORMAT})")
    method = method_named(saved["method"])
    config = from_dict(method.config, saved["config"])
    encoders = Encoders(method.module(config), config, saved["method"], saved["preset"],
                        saved["origin"])  # fmt: skip
    settings: Settings = from_dict(Settings, saved["settings"])
    head = saved["head"]
    model = Classifier(
        encoders, settings, head["classes"], hidden=head["hidden"], dropout=head["dropout"],
        per_frame=head["per_frame"],
    )  # fmt: skip
    model.load_state_dict(saved["model"])
    output = saved["output"]
    if output not in get_args(Output):
        raise UsageError(f"{path}: output {output!r}; expected one of {get_args(Output)}")
    return Kept(model.eval(), encoders, saved["task"], saved["round"], settings,
                tuple(saved["classes"]), output, saved["shards"])  # fmt: skip


def _plain(value: Any) -> Any:
    """JSON types only, which `weights_only` lets through."""
    return json.loads(json.dumps(value, default=str))
