"""A checkpoint on one's own videos: `python -m train embed`, `explain`, `predict`, `export`.

    videos      plain videos -> a temporary shard set, by the pipeline's own command
    clips       a shard set -> its clips, what is known of each, windows that cover it
    embed       videos or a shard set -> their features in one file, or in parts
    features    shard set -> features, one Parquet a shard, resumable, by several ranks
    table       features -> Parquet or NPZ; parts joined to one file
    explain     a video with the attention map over it; overlay: the map as pictures
    encoding    the ffmpeg program: durations, encoding
    predict     what a fine-tuned model says of a video, second by second
    export      a checkpoint -> safetensors, config, model card

Importing this package loads nothing.
"""
