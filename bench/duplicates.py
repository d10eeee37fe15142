"""How many planted duplicates are found among real clips, and how many pairs are found wrongly.

    python -m bench.duplicates ROOT WORK

ROOT is a folder of videos that are no duplicates of each other; every one of SOURCES kinds of them
is copied in each of the ways of `WAYS` by the ffmpeg program. Both folders become shard sets in
WORK; then `pipeline duplicates` is asked, and the answer is compared with what was planted.
"""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import imageio_ffmpeg
import pyarrow.parquet as pq

from manifests.listing import from_uri
from manifests.text import say

SOURCES = 20
"""Real clips that are copied."""
MAX_BYTES = 1_000_000
"""Larger ones take long to copy ten times."""
LEAST_SECONDS = 4.0
GAIN_DB = -12
PICTURE = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "23", "-pix_fmt", "yuv420p")
SOUND = ("-c:a", "aac", "-b:a", "96k")
EVEN = "scale=trunc(iw/2)*2:trunc(ih/2)*2"
WAYS: dict[str, tuple[str, ...]] = {
    "rescaled to 60 %": ("-vf", f"scale=iw*0.6:ih*0.6,{EVEN}", *PICTURE, *SOUND),
    "recompressed hard": (
        "-vf", EVEN, *PICTURE, "-crf", "38", *SOUND[:2], "-b:a", "32k",
    ),
    "mirrored": ("-vf", f"hflip,{EVEN}", *PICTURE, *SOUND),
    "cropped by 5 %": ("-vf", f"crop=iw*0.95:ih*0.95,{EVEN}", *PICTURE, *SOUND),
    "letterboxed": ("-vf", f"{EVEN},pad=iw:trunc(ih*1.33/2)*2:0:(oh-ih)/2", *PICTURE, *SOUND),
    "cut by 2 s": ("-ss", "2", "-vf", EVEN, *PICTURE, *SOUND),
    "12 dB softer": ("-vf", EVEN, *PICTURE, "-af", f"volume={GAIN_DB}dB", *SOUND),
    "sound at 8 kHz": ("-vf", EVEN, *PICTURE, "-ar", "8000", "-ac", "1", *SOUND[:2], "-b:a", "24k"),
    "other sound": ("-vf", EVEN, *PICTURE, *SOUND),
    "all at once": (
        "-ss", "1", "-vf", f"crop=iw*0.95:ih*0.95,scale=iw*0.7:ih*0.7,{EVEN}", *PICTURE,
        "-af", f"volume={GAIN_DB}dB", "-ar", "16000", *SOUND[:2], "-b:a", "48k",
    ),
}  # fmt: skip
"""What was done to a copy: the options of ffmpeg. `other sound` takes that of the next source."""


def main(root: Path, work: Path) -> None:
    """Plant, make shards, look for duplicates, and print the table."""
    _shards(root, work / "real")
    sources = [root / from_uri(uri) for uri in _sources(root, work / "real")]
    _plant(sources, work / "planted-raw")
    _shards(work / "planted-raw", work / "planted")
    _run("pipeline", "duplicates", work / "real", work / "planted")
    say(*table(root, work))


def table(root: Path, work: Path) -> list[str]:
    """Copies that are found, by way and kind, and the pairs of originals that nobody planted."""
    real, planted = (pq.read_table(work / name / "samples.parquet") for name in ("real", "planted"))
    key_of = dict(zip(real["uri"].to_pylist(), real["key"].to_pylist(), strict=True))
    originals = [key_of[uri] for uri in _sources(root, work / "real")]
    made = Counter(key.partition("/")[0] for key in planted["key"].to_pylist())
    found: dict[str, Counter[str]] = {way: Counter() for way in _slugs()}
    strange: Counter[str] = Counter()
    unplanted = []
    for pair in pq.read_table(work / "real" / "quality" / "duplicates.parquet").to_pylist():
        way, _, name = pair["other_key"].partition("/")
        if way not in found:
            unplanted.append(pair)
        elif originals[int(name.partition("_")[0])] == pair["key"]:
            found[way][pair["kind"]] += 1
        else:
            strange[f"{way}: {pair['kind']}"] += 1
    lines = ["| copy | made | near | picture | sound |", "|---|---|---|---|---|"]
    for slug, way in _slugs().items():
        counts = " | ".join(str(found[slug][kind]) for kind in ("near", "picture", "sound"))
        lines.append(f"| {way} | {made[slug]} | {counts} |")
    lines.append(f"copies that are paired with another original: {dict(strange)}")
    lines.append(f"pairs among the {len(real)} real clips, for eyes and ears:")
    return lines + [f"  {pair}" for pair in unplanted]


def _slugs() -> dict[str, str]:
    return {way.replace(" ", "_").replace("%", "percent"): way for way in WAYS}


def _sources(root: Path, out: Path) -> list[str]:
    """URIs of clips with sound that are long enough, from as many folders as there are."""
    rows = pq.read_table(out / "samples.parquet").to_pylist()
    good = [row for row in rows if row["seconds"] >= LEAST_SECONDS and not row["silent"]]
    seen: Counter[str] = Counter()
    ranked = []
    for row in good:
        folder = row["uri"].partition("/")[0]
        ranked.append((seen[folder], row["uri"]))
        seen[folder] += 1
    small = [uri for _, uri in sorted(ranked) if _bytes(root, uri) <= MAX_BYTES]
    return small[:SOURCES]


def _bytes(root: Path, uri: str) -> int:
    return (root / from_uri(uri)).stat().st_size


def _plant(sources: list[Path], into: Path) -> None:
    for way, options in _slugs().items():
        (into / way).mkdir(parents=True, exist_ok=True)
        for number, source in enumerate(sources):
            path = into / way / f"{number:03d}.mp4"
            if path.exists():
                continue
            other = sources[(number + 1) % len(sources)]
            inputs = ["-i", source]
            if options == "other sound":
                inputs = ["-i", source, "-stream_loop", "-1", "-i", other, "-map", "0:v:0",
                          "-map", "1:a:0", "-shortest"]  # fmt: skip
            _ffmpeg(*inputs, "-t", "10", *WAYS[options], path)


def _ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y"]
    subprocess.run([*command, *map(str, arguments)], check=True)


def _shards(root: Path, out: Path) -> None:
    _run("pipeline", "shards", "--dataset", "folder", "--root", root, "--out", out, "--faces",
         "off", "--executor", "local", "--max-error-rate", "1")  # fmt: skip


def _run(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("expected two folders, of real clips and for the work: bench.duplicates ROOT WORK")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
