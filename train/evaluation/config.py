"""The flags of `train eval`."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.augment import AugmentConfig
from train.boxes import Boxes
from train.config import Precision
from train.errors import UsageError
from train.evaluation.task import (
    Average,
    CellPool,
    Cells,
    Features,
    Modality,
    Pictures,
    Pooling,
    Protocol,
    Settings,
)
from train.view import View

SETTINGS = tuple(item.name for item in dataclasses.fields(Settings))


@dataclass(frozen=True)
class EvalConfig:
    """One evaluation."""

    task: str
    """A name of `train.tasks.TASKS`; `python -m train eval --help` lists them."""
    checkpoint: Path | None = None
    """A run's folder, of which `best`, or else the newest checkpoint is taken, or a checkpoint;
    None is the newest finished run."""
    scratch: bool = False
    """Random weights instead of a checkpoint: what the labels alone can teach."""
    preset: str = ""
    """With --scratch: which networks; empty is the method's default."""
    method: str = "glcm"
    """With --scratch: of which method."""
    shards: str = ""
    """The task's shard set; empty is DATA/shards/DATASET-PROFILE."""
    gallery: str = ""
    """Of the task fingerprint: shards of the clean clips; empty is DATA/shards/vggsound-glcm."""
    data: Path = Path("data")
    """Where default shard sets are looked for."""
    run: str = ""
    """Results go to RUN/eval/; empty is the checkpoint's run, or runs/scratch-PRESET."""
    name: str = ""
    """Folder of the result in RUN/eval; empty is TASK, with -PROTOCOL, -MODALITY and so on where
    they are not the task's own, and -lr_encoderRATE where that is given."""
    rounds: str = ""
    """Only these folds or splits, such as fold1,fold2; the result says so."""
    split: str = ""
    """Another split to score, of tasks that train nothing."""
    allow_missing: bool = False
    """Score an incomplete test split; the result says how much of it there was."""
    where: str | None = None
    """Learn from and score only the clips for which this is true, such as "silent == false"; the
    result says how many it leaves out. The test split has to be complete all the same."""
    without: Path | None = None
    """Leave out the clips that a file lists, as for `train pretrain`."""
    limit: int | None = None
    """At most so many examples of each split, for trying things out; the result says so."""
    labels: int | None = None
    """Learn from at most so many training examples of each class, and choose by at most so many
    validation examples, drawn by --seed: what few labels teach. Those of fewer are among those of
    more; test examples all stay."""
    overwrite: bool = False
    """Do again what is done."""

    protocol: Protocol | None = None
    """finetune, linear, svm, knn; None is the task's own, as for all settings below."""
    pictures: Pictures | None = None
    """frames, lip, face or none."""
    modality: Modality | None = None
    """V, A or V+A."""
    frames: int | None = None
    """Window, frames; 0 is the whole example."""
    window_seconds: float | None = None
    """Window, seconds, in place of the task's own frames; --frames goes before it."""
    clips: int | None = None
    """Windows scored an example; 0 tiles it."""
    train_clips: int | None = None
    """Windows learned from an example, by frozen protocols."""
    crops: int | None = None
    """1 or 3 along the long side."""
    average: Average | None = None
    """prob or logit, over windows and crops."""
    features: Features | None = None
    """both, g or l."""
    pooling: Pooling | None = None
    """crop_avg, full_avg, full_attention."""
    layer: str | None = None
    """A stage of the visual network instead of its features: res2 ... res5, conv2x ... conv5x."""
    cell_pool: CellPool | None = None
    """avg or max: what a cell says."""
    cells: Cells | None = None
    """Parts of time, rows and columns in which features are averaged, side by side."""
    tracks: int | None = None
    """Faces scored, 1 or 2 (dfdc)."""
    boxes: Boxes | None = None
    """truth, face or mouth (localization)."""
    epochs: int | None = None
    """Of fine-tuning."""
    batch_size: int | None = None
    """Clips a step of fine-tuning."""
    context: int | None = None
    """Of sentences, on frozen features: frames about each that the linear layer sees, odd."""
    beam: int | None = None
    """Of sentences: hypotheses that CTC decoding keeps, without a language model; 0 is greedy."""

    lr_head: float = 1e-3
    """Peak learning rate of AdamW for the head."""
    lr_encoder: float | None = None
    """And for the encoders; None is a tenth of the head's, from scratch the same; 0 leaves them as
    they are, the statistics of BatchNorm too."""
    weight_decay: float = 1e-4
    """Of AdamW, decoupled."""
    warmup: float = 0.05
    """Part of the steps that warm up, 0 .. 0.1; then cosine to 0."""
    hidden: int = 512
    """Width of the head's hidden layer."""
    dropout: float = 0.5
    """In the head."""
    validation: float | None = None
    """Part of the training groups that choose the epoch where the data set has no validation
    split; 0 trains on all and takes the last epoch. None is the task's own."""
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            resized_crop=False, grayscale=0.0, mask_bands=12, mask_slices=12
        )
    )
    """What happens to training clips on the device."""
    keep_model: bool = True
    """Keep fine-tuned models in ROUND/model.pt, for `python -m train predict`."""
    seed: int = 0
    """Of head, order, windows, augmentation and held-out groups."""
    precision: Precision = "auto"
    """bf16 autocast or fp32; auto is bf16 on a GPU."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    threads: int | None = None
    """Threads of torch on a CPU; None leaves torch's choice."""
    workers: int | None = None
    """Reading processes; None is the usable cores less one, 0 reads in the loop."""

    def __post_init__(self) -> None:
        """Ranges."""
        if self.scratch and self.checkpoint is not None:
            raise UsageError("--scratch and --checkpoint exclude each other; leave one out")
        if (
            not 0 <= (self.validation or 0) < 1
            or not 0 <= self.warmup <= 0.1
            or not 0 <= self.dropout < 1
        ):
            raise UsageError("--validation and --dropout: 0 or more, below 1; --warmup: 0 to 0.1")
        for name in ("limit", "labels"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise UsageError(f"--{name} is {count}; expected 1 or more")
        if self.lr_head <= 0 or (self.lr_encoder is not None and self.lr_encoder < 0):
            raise UsageError("--lr-head must be above 0, --lr-encoder 0 or more")

    @property
    def encoder_lr(self) -> float:
        """The encoders' peak learning rate."""
        if self.lr_encoder is not None:
            return self.lr_encoder
        return self.lr_head if self.scratch else self.lr_head / 10

    @property
    def changes(self) -> dict[str, Any]:
        """The settings that are not the task's own."""
        return {name: getattr(self, name) for name in SETTINGS if getattr(self, name) is not None}

    def view(self) -> View:
        """Which clips pass."""
        return View(self.where, self.without)

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return plain
