"""The floor: decoding a file with the ffmpeg program, picture and sound, to nowhere."""

from pathlib import Path

from manifests.render import encode


def decode(path: Path) -> None:
    """`ffmpeg -threads 1 -i FILE -f null -`."""
    encode.run(["-v", "error", "-threads", "1", "-i", str(path), "-f", "null", "-"])
