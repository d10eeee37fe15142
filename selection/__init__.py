"""Which clips of a set count: expressions over the facts that are stored of each clip.

    where     `silent == false and face_rate > 0.8` -> true or not, clip by clip; values: what it
              compares
    facts     where the columns it may name are stored: samples.parquet and OUT/quality/

A set keeps every clip with its numbers; what to leave out is decided when it is read, by the same
words for `train pretrain`, `train eval` and `pipeline report`. Pipeline and trainer both import
this package, as they do `pipeline.format`; it knows neither, and needs pyarrow and numpy only.
"""


class SelectionError(ValueError):
    """An expression that cannot be understood, or that names what no clip has; for a person."""
