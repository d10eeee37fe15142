"""From verified shards to a trained model: the online half of GLAV.

The files are the stations of the road, in this order:

    cache       shards of stores (s3, gs, http), kept on a local disk
    index       shardindex.json + samples.parquet -> ShardSet, or a sentence that says why not
    mixture     SHARDS=path@n=120000,path@w=0.5 -> one Mixture of clips with global instance ids
    plan        (seed, epoch) -> the order of all clips, in equal batches for every rank
    cuts        what a method reads of a clip: views, stretches of sound, numbers
    read        a part of a clip from its tar: some of its JPEGs, mel, waveform
    cores       how many reading processes there may be
    loader      plan + read in worker processes -> Batch after Batch, resumable at any batch;
                guard: what happens when a clip cannot be read; readers: the processes
    batch       the Batch: uint8 pictures, mel, waveform, numbers, instance ids, keys
    augment     on the device: crop, flip, grayscale, normalisation, SpecAugment
    methods     what is learned: a config and a module whose forward(batch) returns its losses;
                models: their networks; objectives: losses, memory banks, queues
    schedule    learning rate by step
    heldout     held-out clips every so many steps, with wrong sounds as control; overlap: are they
                trained on, too; knn: neighbours; best: which signal chooses; facts: their names
    pretrain    THE loop
    checkpoint  one atomic file a checkpoint; restart: from a run to it and back
    session     what surrounds the loop: run folder, lock, signals; meter: metrics, progress line
    trackers    TensorBoard and W&B; profile: --profile; memory: which batch would have fitted
    report      a run as a page; curves: its figures; livepage: kept fresh while a run goes on;
                record: what a run left, read again; page: what the HTML pages share
    boxes       where what sounds is known to be; strangers: whose sound is foreign to a clip
    elsewhere   checkpoints on stores, and a run's copy there
    dist        ranks, gathering with gradient, a stop flag all ranks agree on

What a checkpoint is worth, in this order:

    tasks       one file an evaluation: which clips, what of them, which metric
    evaluation  what all tasks share: examples, features, probes, fine-tuning, result.json
    metrics     each with its interval; score: resampling; rankings: AUC and AP of many resamples;
                arrays: what may be scored; ctc: characters, greedy and beam decoding
    studies     settings trained and evaluated alike: the tables of the paper, and what is claimed
    overview    all results in one page; papers: their numbers; tables: ours beside them;
                tabletext: as Markdown and HTML

Beside the road: `describe` (sizes and cost), `check` with `generated`, `twins` and `checkpage` (is
a method ready?), `diff` (what two runs do differently); `apply`: a checkpoint on one's own videos,
`exported`: as safetensors.

    from train import load_checkpoint

Importing this package loads nothing heavy, and nothing of it ever loads ray, av or dlib. Of the
offline half only the shard format (`pipeline.format`) is known here.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.evaluation.encoders import load_checkpoint

__all__ = ["load_checkpoint"]

# WebDataset reads this once, when it is imported: no pickles, no `pipe:` addresses.
os.environ.setdefault("WDS_SECURE", "1")
# Read once by OpenMP, when torch is imported: threads that wait for each other sleep instead of
# spinning. On two free cores it costs a few per cent; when they are busy, a step with spinning
# threads takes many times as long (docs/performance.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The same for OpenBLAS, when numpy is imported: threads spin for 2^4 cycles before they sleep, not
# for 2^26. A logistic regression on 775 x 144 features took 0.4 to 1.5 s instead of 4.1 to 4.6 s on
# two cores with eight other processes.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


def __getattr__(name: str) -> Any:
    """`train.load_checkpoint`, without torch before somebody asks for it."""
    if name == "load_checkpoint":
        from train.evaluation.encoders import load_checkpoint

        return load_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
