"""The speed table of the shard job (architecture §8): `make bench`.

Three ways over the same files, interleaved in one process on one core with one thread, in CPU
seconds of this process and its children:

    floor    `ffmpeg -f null`: decoding picture and sound, and nothing else
    ours     the whole pipeline for the clip, down to the bytes in the tar
    naive    the same result the way one would script it in an afternoon

`media` makes the files; `floor`, `ours` and `naive` are the ways; `stopwatch` measures; `goals`
holds what is to be reached; `clips`, `faces`, `workers`, `planning` and `starting` measure it;
`page` renders the table.
"""
