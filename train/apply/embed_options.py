"""The flags of `train embed`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from train.apply.table import Per
from train.config import Precision
from train.errors import UsageError
from train.evaluation.task import Features, Modality, Pooling, Settings


@dataclass(frozen=True)
class EmbedOptions:
    """Of what features are made, and which."""

    inputs: tyro.conf.Positional[tuple[str, ...]]
    """Videos, or one shard set (a folder with shardindex.json, or its address)."""
    checkpoint: Path
    """A checkpoint, a run's folder, or an exported folder."""
    out: Path | None = None
    """FILE.parquet or FILE.npz; of shards also a folder. None is features.parquet for videos, and
    features-NAME for a shard set, in the current folder."""
    per: Per = "clip"
    """One row a clip, or a frame."""
    modality: Literal["V", "A", "V+A"] | None = None
    """Features of pictures, of sound, or of both; None is what there is."""
    pictures: Literal["frames", "lip", "face"] = "frames"
    """Whole frames, or the crops of the first face: lip, face."""
    features: Features = "both"
    """Of pictures: fg and fl, or one of them (g, l)."""
    pooling: Pooling = "full_avg"
    """Over the grid: mean, or full_attention: weighed by the attention map, which needs sound."""
    frames: int | None = None
    """Window; None is the checkpoint's, 0 the whole clip at once."""
    overlap: float | None = None
    """Share of a window that the next one sees again, 0 or more, below 1; None is 0 for clips, 0.5
    for frames."""
    crops: int = 1
    """1: the centre; 3: along the long side, averaged."""
    profile: str = ""
    """Of videos: what the pipeline stores; lips or deepfake for crops of faces, at their rates.
    Empty is the one that the checkpoint's method reads."""
    cut_seconds: float | None = None
    """Of videos: cut each into pieces of so many seconds, a row each; the rest is left out."""
    split: str = ""
    """Of shards: only clips of this split; empty is all."""
    into_set: str = ""
    """Of shards: also make the features a field of this name of the set, which the loader joins
    (--fields NAME) and other tools find in side shards."""
    overwrite: bool = False
    """Throw away what is in --out."""
    allow_http: bool = False
    """Read shards from web servers (http, https), too."""
    batch_size: int = 16
    """Windows at once."""
    precision: Precision = "auto"
    """bf16 autocast or fp32; auto is bf16 on a GPU."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    threads: int | None = None
    """Threads of torch on a CPU; None leaves torch's choice."""
    workers: int | None = None
    """Reading processes of each rank; None is the usable cores less one, 0 reads in the loop."""

    def __post_init__(self) -> None:
        """Ranges."""
        if not self.inputs:
            raise UsageError("name videos, or a shard set: python -m train embed my.mp4 "
                             "--checkpoint runs/first")  # fmt: skip
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise UsageError(f"--overlap is {self.overlap}; expected 0 or more, below 1")
        if self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}; expected 1 or more")
        if self.cut_seconds is not None and self.cut_seconds <= 0:
            raise UsageError(f"--cut-seconds is {self.cut_seconds}; expected more than 0")
        self.settings("V+A")

    def settings(self, modality: Modality) -> Settings:
        """How clips are looked at.

        Raises:
            UsageError: values that do not go together.
        """
        pictures = self.pictures if "V" in modality else "none"
        pooling = self.pooling if "V" in modality else "full_avg"
        return Settings("frozen", pictures, modality, self.frames, crops=self.crops,
                        features=self.features, pooling=pooling)  # fmt: skip

    @property
    def shared(self) -> float:
        """The overlap of windows."""
        return (0.5 if self.per == "frame" else 0.0) if self.overlap is None else self.overlap
