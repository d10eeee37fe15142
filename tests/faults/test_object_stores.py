"""Cases 13, 14 and 15 of distributed.md §6: stores that refuse, fail for a while, or for good.

A real S3 server in a process of its own, behind a proxy that fails as told; boto3 looks at what
came of it. Real clips where they are there.
"""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests.errors import UsageError
from pipeline.__main__ import INCOMPLETE, LOCKED, USAGE
from pipeline.make import make_shards
from pipeline.options import ShardsOptions
from pipeline.remote import home_of, reading
from pipeline.retry import retry
from pipeline.settings import job_options
from pipeline.status import status
from pipeline.verify import verify
from stores.base import Listed
from stores.errors import StoreError
from stores.objects import ObjectStore
from tests.faults.jobs import X264
from tests.pipeline.clips import REAL_MEDIA, make_clip
from tests.stores.bucket import KEY, SECRET, Bucket, Fault, bucket as a_bucket, server

__all__ = ["a_bucket", "server"]

pytestmark = pytest.mark.timeout(1500)  # commands start several times, also on busy machines
REPOSITORY = Path(__file__).parents[2]
REAL = REAL_MEDIA / "k600-movinet/code/app/src/androidTest/assets/carving_ice.mp4"
STOPPED_SECONDS = 30.0
"""Trying on takes so long at the least, for the shard alone."""
HOST_OF_ANOTHER = "node-of-another-job"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, one of them real where that is at hand, a mute one, one without bytes."""
    folder = tmp_path_factory.mktemp("clips")
    for number, (label, name) in enumerate((("a", "one"), ("a", "two ü"), ("b", "three"))):
        (folder / label).mkdir(exist_ok=True)
        seconds = 1.2 + 0.2 * number
        make_clip(folder / label / f"{name}.mp4", seconds=seconds, size="96x64", options=X264)
    make_clip(folder / "b" / "mute.mp4", seconds=1.5, size="64x48", sound=False, options=X264)
    (folder / "b" / "empty.mp4").touch()
    if REAL.is_file():
        shutil.copyfile(REAL, folder / REAL.name)
    return folder


@pytest.fixture
def bucket(
    a_bucket: Bucket, clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Bucket:
    """A bucket with the clips below raw/."""
    monkeypatch.chdir(tmp_path)
    a_bucket.upload(clips, "raw")
    return a_bucket


def wanted(root: str | Path, out: str | Path) -> ShardsOptions:
    return ShardsOptions(
        "folder",
        root=str(root),
        out=str(out),
        faces="off",
        executor="local",
        workers=1,
        seconds_per_shard=2,
    )


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same set from and in folders of this machine."""
    out = tmp_path_factory.mktemp("undisturbed") / "set"
    assert make_shards(wanted(clips, out), lambda line: None).exit_code == 0
    return out


def hashes(out: Path) -> dict[str, str]:
    return {
        f"{path.stem}.tar": json.loads(path.read_bytes())["sha256"]
        for path in (out / "shards").glob("*.json")
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", *arguments]


def shards_command(bucket: Bucket, out: str = "set") -> list[str]:
    return command(
        *("shards", "--dataset", "folder", "--root", bucket.url("raw"), "--out", bucket.url(out)),
        *("--faces", "off", "--executor", "local", "--workers", "1", "--seconds-per-shard", "2"),
    )


def run(arguments: list[str], environment: dict[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        cwd=os.getcwd(),
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | (environment or {}),
    )
    return done.returncode, done.stdout + done.stderr


def make(bucket: Bucket, out: str = "set") -> int:
    return make_shards(wanted(bucket.url("raw"), bucket.url(out)), lambda line: None).exit_code


# --- from and to a store --------------------------------------------------------------------------


def test_the_bytes_are_those_of_folders_and_the_set_is_sound(
    bucket: Bucket, undisturbed: Path
) -> None:
    assert make(bucket) == 0
    assert bucket.tars("set") == hashes(undisturbed)
    index = json.loads(bucket.objects("set/shardindex.json")["set/shardindex.json"])
    assert index["complete"] and index == json.loads((undisturbed / "shardindex.json").read_bytes())
    with reading(bucket.url("set")) as mirror:
        assert verify(mirror, deep=True, progress=None).exit_code == 0
        assert status(mirror).shards == len(index["shardlist"]) + _empty(undisturbed)
    assert not list(Path("scratch/live").iterdir())


def _empty(out: Path) -> int:
    """Shards without a sample, which an index leaves out."""
    cars = [json.loads(path.read_bytes()) for path in (out / "shards").glob("*.json")]
    return sum(not car["nsamples"] for car in cars)


@pytest.mark.slow
def test_a_finished_set_is_left_alone_even_by_a_machine_that_never_saw_it(
    bucket: Bucket, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert make(bucket) == 0
    before = bucket.objects("set")
    bucket.proxy.asked.clear()
    monkeypatch.setenv("GLAV_SCRATCH", str(tmp_path / "other machine"))
    assert make(bucket) == 0
    assert bucket.proxy.count(r"\.mp4") == 0
    assert bucket.proxy.count(r"PUT .*(\.tar|/shards/)") == 0
    after = bucket.objects("set")
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"set/report.html", "set/metrics.prom"}, "what tells of the latest job"
    assert re.findall(rb"^glav_job_running.* (.+)$", after["set/metrics.prom"], re.M) == [b"0.0"]


@pytest.mark.slow
def test_only_what_is_missing_is_made(bucket: Bucket, undisturbed: Path) -> None:
    assert make(bucket) == 0
    first, second, *_ = sorted(bucket.tars("set"))
    bucket.remove(f"set/shards/{first}")
    bucket.put(f"set/shards/{second}", b"grown")
    bucket.proxy.asked.clear()
    assert make(bucket) == 0
    assert bucket.tars("set") == hashes(undisturbed)
    assert bucket.proxy.count(r"(PUT|POST) .*\.tar(\?|$)") == 2


@pytest.mark.slow
def test_verify_tells_a_damaged_tar_on_a_store(bucket: Bucket) -> None:
    assert make(bucket) == 0
    name = next(iter(bucket.tars("set")))
    tar = bytearray(bucket.objects(f"set/shards/{name}")[f"set/shards/{name}"])
    tar[len(tar) // 2] ^= 1
    bucket.put(f"set/shards/{name}", bytes(tar))
    with reading(bucket.url("set")) as mirror:
        verdict = verify(mirror, progress=None)
    assert verdict.exit_code == 5
    assert any("sha256" in said and name[:-4] in said for said in verdict.corrupt)


@pytest.mark.slow
def test_retry_makes_a_patch_on_a_store(bucket: Bucket, undisturbed: Path, clips: Path) -> None:
    manifest = undisturbed / "scan" / "manifest.parquet"
    bucket.remove("raw/a/one.mp4")
    options = ShardsOptions(**{**wanted(bucket.url("raw"), bucket.url("set")).__dict__,
                               "manifest": str(manifest)})  # fmt: skip
    assert make_shards(options, lambda line: None).exit_code == 0
    table = _errors(bucket)
    assert table["a/one_mp4"] == "missing_file"
    bucket.put("raw/a/one.mp4", (clips / "a/one.mp4").read_bytes())
    with reading(bucket.url("set")) as mirror:
        outcome = retry(mirror, "missing_file", job_options(options), lambda line: None)
    assert outcome.exit_code == 0
    assert "a/one_mp4" not in _errors(bucket)
    assert "all-p000000.tar" in bucket.tars("set")


@pytest.mark.slow
def test_a_field_and_a_purge_by_the_commands_are_those_of_a_folder(
    bucket: Bucket, undisturbed: Path, tmp_path: Path
) -> None:
    assert make(bucket) == 0
    here, keys = tmp_path / "here", tmp_path / "keys.txt"
    shutil.copytree(undisturbed, here)
    keys.write_text("a/one_mp4\n")
    adding = ("landmarks", "--executor", "local", "--workers", "1")
    for out in (str(here), bucket.url("set")):
        code, said = run(command("add-field", out, *adding))
        assert code == 0, said
        assert "scratch" not in said
    sides = hashes(here / "fields/landmarks")
    assert sides and bucket.tars("set/fields/landmarks") == sides
    for out in (str(here), bucket.url("set")):
        code, said = run(command("drop", out, "--keys", str(keys), "--purge"))
        assert code == 0, said
        assert f"`python -m pipeline add-field {out} landmarks` makes them again" in said
        assert "scratch" not in said
    assert bucket.tars("set") == hashes(here) != hashes(undisturbed)
    left = bucket.tars("set/fields/landmarks")
    assert left == hashes(here / "fields/landmarks") and len(left) == len(sides) - 1


def test_a_field_of_sources_on_a_store_is_that_of_a_folder(
    bucket: Bucket, undisturbed: Path, tmp_path: Path
) -> None:
    """The set stores no waveform, so that a mel at another rate fetches and hears its clips."""
    assert make(bucket) == 0
    here = tmp_path / "here"
    shutil.copytree(undisturbed, here)
    adding = ("mel_24000", "--mel-rate", "24000", "--from-source", "--executor", "local",
              "--workers", "1")  # fmt: skip
    bucket.proxy.asked.clear()
    for out in (str(here), bucket.url("set")):
        code, said = run(command("add-field", out, *adding))
        assert code == 0, said
    sides = hashes(here / "fields/mel_24000")
    assert sides and bucket.tars("set/fields/mel_24000") == sides
    assert bucket.proxy.count("GET .*/raw/") > 0


def _errors(bucket: Bucket) -> dict[str, str]:
    (data,) = bucket.objects("set/errors.parquet").values()
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    return {row["key"]: row["reason"] for row in rows}


# --- case 13: refused before anything is decoded --------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(".*", ".", 403), id="wrong credentials"),
        pytest.param(Fault("PUT|POST", ".", 403), id="not writable"),
    ],
)
def test_a_store_that_refuses_ends_with_2_and_its_name(bucket: Bucket, fault: Fault) -> None:
    bucket.proxy.faults.append(fault)
    code, said = run(shards_command(bucket))
    assert code == USAGE
    assert f"error: {bucket.url('set')}" in said
    assert SECRET not in said and "Traceback" not in said
    assert bucket.proxy.count(r"GET .*\.mp4") == 0
    assert bucket.objects("set") == {}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["--root", "--out"])
def test_a_bucket_that_is_not_there_ends_with_2_and_its_name(bucket: Bucket, which: str) -> None:
    arguments = shards_command(bucket)
    arguments[arguments.index(which) + 1] = "s3://bucket-of-nobody/place"
    code, said = run(arguments)
    assert code == USAGE
    assert "error: s3://bucket-of-nobody/place" in said
    assert bucket.proxy.count(r"GET .*\.mp4") == 0


@pytest.mark.slow
@pytest.mark.parametrize("command_name", ["status", "verify", "errors", "peek", "finalize"])
def test_commands_on_an_empty_address_say_so(bucket: Bucket, command_name: str) -> None:
    code, said = run(command(command_name, bucket.url("nothing")))
    assert code == USAGE
    assert bucket.url("nothing") in said
    assert "Traceback" not in said and "scratch" not in said


@pytest.mark.slow
def test_a_password_in_an_address_is_refused_and_not_repeated(bucket: Bucket) -> None:
    for flag in ("--root", "--out"):
        arguments = shards_command(bucket)
        arguments[arguments.index(flag) + 1] = f"s3://{KEY}:{SECRET}@shelf/x"
        code, said = run(arguments)
        assert code == USAGE
        assert "AWS_PROFILE" in said and SECRET not in said


# --- case 14: 500, slow, for a while and for good -------------------------------------------------


def test_trouble_that_passes_changes_nothing(bucket: Bucket, undisturbed: Path) -> None:
    bucket.proxy.faults += [
        Fault("GET|HEAD", r"\.mp4", 500, times=4),
        Fault("PUT|POST", r"\.tar", 503, times=3),
        Fault("GET", "list-type", 500, times=2),
        Fault("PUT", r"shards/.*\.json", 200, times=1, delay_seconds=2),
    ]
    assert make(bucket) == 0
    assert bucket.tars("set") == hashes(undisturbed)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("GET|HEAD", r"/raw/.*\.mp4"), id="media", marks=pytest.mark.slow),
        pytest.param(Fault("PUT|POST", r"/shards/.*\.tar"), id="tars"),
        pytest.param(Fault("PUT|POST", r"/shards/.*\.json"), id="sidecars", marks=pytest.mark.slow),
    ],
)
def test_a_lasting_outage_fails_the_shard_and_no_clip(
    bucket: Bucket, undisturbed: Path, fault: Fault
) -> None:
    bucket.proxy.faults.append(fault)
    said: list[str] = []
    outcome = make_shards(wanted(bucket.url("raw"), bucket.url("set")), said.append)
    assert outcome.exit_code == INCOMPLETE
    assert any("tried 8 times" in line and "503" in line for line in outcome.lines), outcome.lines
    assert set(_errors(bucket).values()) == {"not_run"}
    assert not any(name.endswith("shardindex.json") for name in bucket.objects("set"))
    assert not [name for name in bucket.objects("set/shards/") if name.endswith(".json")]
    bucket.proxy.heal()
    assert make(bucket) == 0
    assert bucket.tars("set") == hashes(undisturbed)


def test_an_outage_of_the_whole_store_is_not_the_callers_mistake(bucket: Bucket) -> None:
    bucket.proxy.faults.append(Fault(".*", "."))
    with pytest.raises(StoreError, match="tried 8 times"):
        make(bucket)


@pytest.mark.slow
def test_a_job_told_to_stop_in_an_outage_does_not_try_on(bucket: Bucket, undisturbed: Path) -> None:
    bucket.proxy.faults.append(Fault("PUT|POST", r"/shards/.*\.tar"))
    with subprocess.Popen(
        shards_command(bucket), env=os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ) as process:
        assert bucket.proxy.hit.wait(200)
        bucket.proxy.faults.append(Fault(".*", "."))
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(200) == 128 + signal.SIGTERM
    assert time.monotonic() - began < STOPPED_SECONDS
    bucket.proxy.heal()
    assert make(bucket) == 0
    assert bucket.tars("set") == hashes(undisturbed)


# --- case 15: an upload that ends in the middle ---------------------------------------------------


@pytest.mark.slow
def test_a_job_killed_while_it_uploads_leaves_no_tar_and_goes_on(
    bucket: Bucket, undisturbed: Path
) -> None:
    bucket.proxy.faults.append(Fault("PUT|POST", r"/shards/.*\.tar", 0, delay_seconds=30))
    process = subprocess.Popen(
        shards_command(bucket), env=os.environ | {"PYTHONPATH": str(REPOSITORY)}
    )
    assert bucket.proxy.hit.wait(200)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert bucket.objects("set/shards/") == {}
    left = list(Path("scratch/live").iterdir())
    assert left
    bucket.proxy.heal()
    assert make(bucket) == 0
    assert bucket.tars("set") == hashes(undisturbed)
    assert not any(folder.exists() for folder in left)


@pytest.mark.slow
def test_an_exception_during_the_upload_leaves_no_tar(
    bucket: Bucket, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ObjectStore.write

    def fails(self: ObjectStore, name: str, data: object) -> Listed:
        if name.endswith(".tar"):
            raise RuntimeError("a bug")
        return write(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "write", fails)
        with pytest.raises(RuntimeError, match="a bug"):
            make(bucket)
    assert bucket.objects("set/shards/") == {}
    assert make(bucket) == 0
    assert bucket.tars("set") == hashes(undisturbed)


# --- one job on one address -----------------------------------------------------------------------


def lease_of_another(renewed_seconds_ago: float) -> bytes:
    now = time.time() - renewed_seconds_ago
    return json.dumps(
        {"host": HOST_OF_ANOTHER, "pid": 4711, "started": "today", "renewed_unix": now}
    ).encode()


def test_two_jobs_on_one_address(bucket: Bucket) -> None:
    bucket.put("set/run.lock", lease_of_another(5))
    code, said = run(shards_command(bucket))
    assert code == LOCKED
    assert HOST_OF_ANOTHER in said and bucket.url("set") in said
    assert set(bucket.objects("set")) == {"set/run.lock"}
    bucket.put("set/run.lock", lease_of_another(-900))
    assert run(shards_command(bucket))[0] == LOCKED, "its clock is ahead, and it is alive"
    bucket.put("set/run.lock", lease_of_another(3600))
    assert make(bucket) == 0
    assert bucket.objects("set/run.lock")["set/run.lock"] == b"{}"


@pytest.mark.slow
def test_a_mirror_is_never_pushed_where_the_store_is_newer(bucket: Bucket, clips: Path) -> None:
    """What a killed job changed in its mirror and did not upload is not the set's."""
    assert make(bucket) == 0
    mirror = home_of(bucket.url("set"))
    (mirror / "plan.json").write_text("{}")
    (mirror / "samples.parquet").unlink()
    with reading(bucket.url("set")):
        assert (mirror / "plan.json").read_bytes() == bucket.objects()["set/plan.json"]
        assert (mirror / "samples.parquet").exists()


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_secret_is_in_anything_that_is_written_or_said(bucket: Bucket, tmp_path: Path) -> None:
    code, said = run(shards_command(bucket))
    assert code == 0, said
    for name in ("status", "verify", "errors"):
        said += run(command(name, bucket.url("set")))[1]
    written = bucket.objects("set")
    written |= {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    texts = {name: data.decode("latin-1") for name, data in written.items()}
    for name, data in written.items():
        if name.endswith(".parquet"):
            texts[f"{name}:rows"] = str(pq.read_table(io.BytesIO(data)).to_pylist())
            texts[f"{name}:facts"] = str(pq.read_schema(io.BytesIO(data)).metadata)
    for secret in (KEY, SECRET):
        assert secret not in said
        assert [name for name, text in texts.items() if secret in text] == []


def test_what_would_become_its_own_input_is_refused(bucket: Bucket) -> None:
    with pytest.raises(UsageError, match="lies inside the root"):
        make(bucket, "raw/shards")
