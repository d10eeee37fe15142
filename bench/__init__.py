"""The speed table (architecture §8): `make bench`.

For the shard job, three ways over the same files, interleaved in one process on one core with one
thread, in CPU seconds of this process and its children:

    floor    `ffmpeg -f null`: decoding picture and sound, and nothing else
    ours     the whole pipeline for the clip, down to the bytes in the tar
    naive    the same result the way one would script it in an afternoon

The loader and the training step of `train` are measured likewise, each against plain ways: see
`loading` (with `plainload`) and `steps`.

`--only` takes one part: `pipeline`, `loader`, `step`; `store` (the loader's cache, and uploads
beside decoding, by `elsewhere`), `methods` (their steps, by `methods`, and the use of a long queue,
by `queues`), `cluster` (what Ray adds, by `cluster`), or `scale` (two million rows, by `planning`
and `growing`).

`media` makes the files; `floor`, `ours` and `naive` are the ways; `stopwatch` measures; `goals`
holds what is to be reached; `clips`, `faces`, `workers`, `planning` and `starting` measure it;
`page` renders the table.
"""
