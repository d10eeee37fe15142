"""The flags of `python -m pipeline shards` and `plan`, with their help."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ShardsOptions:
    """What to make, from what, and how."""

    dataset: str
    """Data set name; `python -m manifests datasets` lists them."""
    root: str | None = None
    """Folder with the raw files, or s3://bucket/raw, gs://...; default DATA/raw/NAME."""
    out: str | None = None
    """Output folder, or s3://bucket/set, gs://...; default DATA/shards/NAME-PROFILE."""
    data: str = "data"
    """Folder that holds raw, manifests and shards by default."""
    manifest: str | None = None
    """A manifest made earlier (or by your own program), used as it is; needs --root."""
    profile: str | None = None
    """What to store: glcm, loc, lips, deepfake, avid, tempssl, coattention or sound; default by
    data set."""
    faces: str | None = None
    """auto, on or off; default by profile."""
    fps: str | None = None
    """Frames a second, 10 or 30000/1001; default by profile."""
    min_seconds: str | None = None
    """Shortest clip kept, 0.5 or 1/2; default 1. Windows of a benchmark are kept however short."""
    table: str | None = None
    """CSV, JSONL or Parquet file with one row per clip (data set `table`)."""
    annotations: str | None = None
    """Annotation file or folder; default: looked for below the root."""
    window: float | None = None
    """Cut each file into windows of so many seconds (folder, table), or pretraining clips between
    words into pieces of at most so many (lrs2, lrs3)."""
    hop: float | None = None
    """Seconds between the starts of two windows; default: the window's length."""
    label_set: int = 32
    """Kinetics-Sounds: 31 or 32 classes."""
    reference: str = "vggsound"
    """AugVGG: the data set whose clips are manipulated."""
    recipe_seed: int = 0
    """AugVGG: another number draws other recipes."""
    planted_clips: int = 600
    """Planted corpus: how many clips are rendered."""
    planted_seconds: float = 7.0
    """Planted corpus: how long each is."""
    planted_seed: int = 0
    """Planted corpus: another number draws another corpus."""
    planted_nuisance: float = 1.0
    """Planted corpus: 0 to 1 of a moving camera, silent rivals, drifting things, other sounds."""
    planted_light: float = 0.0
    """Planted corpus: 0 to 1 of a stage light that follows how loud the performer is."""
    seconds_per_shard: float | None = None
    """Seconds of media in a shard, fixed by the first run; default by the size of the set, 20 to
    1000."""
    limit: int | None = None
    """Make only so many clips; the others are `not_run` and can follow later. The corpora that are
    generated here are rendered whole all the same."""
    executor: str = "ray"
    """ray (embedded, or the cluster that RAY_ADDRESS names) or local (no Ray)."""
    ray_address: str | None = None
    """Ray cluster to use: HOST:6379, ray://HOST:10001 or auto; default: the environment's
    RAY_ADDRESS, else an embedded Ray."""
    workers: int | None = None
    """Clips decoded at the same time; default: the usable cores. A cluster's CPUs are all used."""
    metrics_port: int | None = None
    """Serve Prometheus metrics at this port; OUT/metrics.prom has them in any case."""
    metrics_host: str = "127.0.0.1"
    """Address to serve them at; 0.0.0.0 lets other machines read them."""
    log_seconds: float = 10.0
    """Seconds between two lines about the progress, where there is no terminal."""
    task: str | None = None
    """I/N: make only every N-th shard from the I-th on, I from 0 (job arrays; then `finalize`)."""
    max_error_rate: float = 0.05
    """Stop when more than this share of the clips fails by crash, timeout, memory or damage; seen
    from 200 clips on."""
    timeout: float | None = None
    """Wall-clock seconds a file may take to open, and the least it gets in all; default 30."""
    max_clip_seconds: float | None = None
    """Longest clip; default 600. Cut longer recordings with --window."""
    scratch: str | None = None
    """Folder of this machine, on a local disk, for copies of what lies on s3:// or gs://; default
    GLAV_SCRATCH, else one below TMPDIR."""
    overwrite: bool = False
    """Throw away what is in the output folder and start anew."""
