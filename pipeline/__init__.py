"""From a manifest to verified WebDataset shards: the offline half of GLAV.

`commands` has the command line. The files are the stations of the road, in this order:

    plan      manifest rows -> plan parts and shards, cut by seconds of video
    mend      files of a plan that are lost or damaged, made again from what is left
    job       shards -> Ray tasks or local threads, progress, retries
    shard     one shard: rows -> tar and sidecar, committed atomically
    remote    OUT on a store: its mirror here, kept true; mirror: how a folder says that it is one
    staging   raw media on a store: fetched one file ahead of the decoder
    sandbox   one file at a time in a killable child process
    sample    a file and its windows -> samples
    augment   carries out the recipe of a manipulated clip (`augvgg`)
    media     opens untrusted media safely; clock, video, sound: pictures and sound by timestamps
    faces     dlib detection, tracks, landmarks; crops: face and lip pictures
    format    the sample as bytes and back: the one thing shared with the trainer
    index     sidecars -> shardindex.json, samples.parquet, errors.parquet
    account   which shard speaks for which row: patches over others, tombstones over all
    retry     rows that failed -> patches: shards of their own, old ones stay untouched; patched:
              rows of mended files that a patch has already
    drop      takes clips back: dropped (tombstones), seen (runs that saw them), purge with
              field_purge and quality_purge (their bytes and what was made of them)
    verify, status, peek, report, doctor: looking at what was made; timeline: a sample as a picture;
              elsewhere: where pages and pictures may be written
    duplicates, leaks, offsets: facts about finished sets, kept in OUT/quality; fingerprints,
              prints, candidates, matching and pairs compare clips
    view      what `--where` lets pass

Importing this package loads nothing heavy.
"""

from fractions import Fraction

from pipeline.config import ShardConfig

PROFILES: dict[str, ShardConfig] = {
    config.profile: config
    for config in (
        ShardConfig("glcm", Fraction(10), 128, 22050, faces="auto"),
        ShardConfig("loc", Fraction(10), 256, 22050),
        ShardConfig("lips", Fraction(25), 128, 22050, faces="on"),
        ShardConfig("deepfake", Fraction(30), 128, 22050, faces="on", face_tracks=2, lips=False),
        ShardConfig("avid", Fraction(16), 256, 24000, 24000, 1),
        ShardConfig("tempssl", Fraction(30), 128, 22050, 24000, 1),
        ShardConfig("coattention", Fraction(30), 256, 22050, 21000, 2),
        ShardConfig("sound", Fraction(10), None, 22050, 24000, 1),
    )
}
"""What to store for whom (architecture §5). Adding a profile is one line."""

DATASET_PROFILES = {
    "kinetics_sounds": "loc",
    "grid": "lips",
    "lrw": "lips",
    "lrs2": "lips",
    "lrs3": "lips",
    "dfdc": "deepfake",
    "dfdc_preview": "deepfake",
    "esc50": "sound",
    "esc10": "sound",
    "dcase2013": "sound",
}
"""The profile of a data set where it is not `glcm`."""


def profile_for(dataset: str) -> str:
    """The profile a data set is made with unless one is named."""
    return DATASET_PROFILES.get(dataset, "glcm")
