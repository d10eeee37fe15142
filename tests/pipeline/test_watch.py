"""A job told to the outside: metrics that Prometheus' own parser reads, a page, lines of a log."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from manifests.errors import UsageError
from pipeline import watch
from pipeline.progress import Pace, Tally
from pipeline.watch import Moment, Watch, WatchOptions
from tests.faults.jobs import X264
from tests.pipeline.clips import ffmpeg, make_clip
from tests.pipeline.test_sandbox import PLUGINS


def metrics(text):
    """{(name, labels): value} by the library's parser, and the types it found."""
    families = list(text_string_to_metric_families(text))
    values = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    return values, {family.name: family.type for family in families}


def value(values, name, **labels):
    """Of the only set that is there."""
    (out,) = {dict(of)["out"] for _, of in values}
    return values[name, frozenset({"set": "folder-glcm", "out": out, **labels}.items())]


def tally():
    def sidecar(host, rows, *reasons):
        return {
            "rows": rows, "nsamples": rows - len(reasons), "seconds": 10.0 * rows,
            "run": {"host": host}, "errors": [{"reason": reason} for reason in reasons],
        }  # fmt: skip

    done = Tally()
    done.add_sidecar(sidecar("n1", 5, "timeout", "no_audio"))
    done.add_sidecar(sidecar('odd"\nname', 4, "no_audio"))
    done.add_sidecar(sidecar("n1", 3, "no_audio"))
    return done


MOMENT = Moment("folder-glcm", shards=10, kept=4, clips=40)


def test_the_file_says_everything_as_prometheus_reads_it(tmp_path):
    outside = Watch(tmp_path, MOMENT, WatchOptions())
    outside.tell(
        committed=tally(), running=2, clips_done=15, clips_per_second=0.5, eta_seconds=50.0
    )
    values, types = metrics((tmp_path / "metrics.prom").read_text())
    assert value(values, "glav_shards_planned") == 10
    assert value(values, "glav_shards_committed") == 4 + 3
    assert value(values, "glav_shards_running") == 2
    assert value(values, "glav_clips_to_do") == 40 - 15
    assert value(values, "glav_clips_per_second") == 0.5
    assert value(values, "glav_eta_seconds") == 50
    assert value(values, "glav_media_seconds_total") == 120
    assert value(values, "glav_clips_total", outcome="sample") == 12 - 4
    assert value(values, "glav_clips_total", outcome="no_audio") == 3
    assert value(values, "glav_clips_total", outcome="crash") == 0
    assert value(values, "glav_host_shards_total", host="n1") == 2
    assert value(values, "glav_failures_total", host="n1", reason="timeout") == 1
    assert value(values, "glav_failures_total", host='odd" name', reason="no_audio") == 1
    assert value(values, "glav_job_running") == 1
    assert abs(value(values, "glav_job_start_time_seconds") - time.time()) < 100
    assert types["glav_clips"] == "counter"
    assert types["glav_shards_committed"] == "gauge"
    outside.close("all shards are made")
    values, _ = metrics((tmp_path / "metrics.prom").read_text())
    assert value(values, "glav_job_running") == 0
    assert "glav_eta_seconds" not in {name for name, _ in values}
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.prom", "report.html"}


def test_two_sets_of_one_data_set_are_told_apart(tmp_path):
    seen = set()
    for name in ("whole", "tried"):
        (tmp_path / name).mkdir()
        Watch(tmp_path / name, MOMENT, WatchOptions()).tell()
        seen |= metrics((tmp_path / name / "metrics.prom").read_text())[0].keys()
    outs = {dict(labels)["out"] for _, labels in seen}
    assert outs == {str(tmp_path / "whole"), str(tmp_path / "tried")}


def test_a_task_of_an_array_has_its_own_file_and_no_page(tmp_path):
    outside = Watch(tmp_path, Moment("s", 3, 0, 9, task="2/5"), WatchOptions())
    outside.tell()
    values, _ = metrics((tmp_path / "metrics-2-of-5.prom").read_text())
    labels = {"set": "s", "out": str(tmp_path), "task": "2/5"}
    assert values["glav_shards_planned", frozenset(labels.items())] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["metrics-2-of-5.prom"]
    watch.remove_task_metrics(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_not_told_here(tmp_path):
    outside = Watch(tmp_path / "gone", MOMENT, WatchOptions())
    outside.tell(clips_done=1)
    assert outside.moment.clips_done == 1


def test_files_are_written_now_and_then_only(tmp_path, monkeypatch):
    written = Counter[str]()
    monkeypatch.setattr(watch, "write_atomically", lambda path, _: written.update([path.name]))
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    outside = Watch(tmp_path, MOMENT, WatchOptions())
    for _ in range(600):
        outside.tell()
        clock[0] += 0.5
    assert written == {"metrics.prom": 30, "report.html": 5}


def test_the_endpoint_is_on_this_machine_and_gone_with_the_job(tmp_path, capfd):
    outside = Watch(tmp_path, MOMENT, WatchOptions(port=0))
    (url,) = re.findall(
        r"^metrics at (http://127\.0\.0\.1:\d+/metrics)$", capfd.readouterr().err, re.M
    )
    with urllib.request.urlopen(url, timeout=20) as answer:
        values, _ = metrics(answer.read().decode())
    assert value(values, "glav_shards_planned") == 10
    outside.tell(clips_done=39)
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert value(metrics(answer.read().decode())[0], "glav_clips_to_do") == 1
    outside.close("")
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=20)


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UsageError, match=rf"--metrics-port {port}: cannot listen on 127"):
            Watch(tmp_path, MOMENT, WatchOptions(port=port))
    with pytest.raises(UsageError, match="--metrics-port 70000"):
        Watch(tmp_path, MOMENT, WatchOptions(port=70000))


def test_the_page_has_the_numbers_and_refreshes_itself_while_the_job_runs(tmp_path):
    outside = Watch(tmp_path, MOMENT, WatchOptions())
    outside.tell(committed=tally(), clips_done=12, clips_per_second=2.0, eta_seconds=14.0)
    page = (tmp_path / "report.html").read_text()
    assert '<meta http-equiv="refresh" content="60">' in page
    text = re.sub(r"<[^>]+>", " ", page.replace("&#34;", '"'))
    words = " ".join(text.split())
    tiles = ("7 of 10 shards", "12 of 40 clips tried", "8 samples", "2.00 clips a second")
    rows = ("14 s to go", "timeout n1 1", "no_audio n1 2", "n1 2", 'no_audio odd" name 1')
    for said in (*tiles, *rows):
        assert said in words, said
    outside.close("No space left <on> the disk")
    page = (tmp_path / "report.html").read_text()
    assert "refresh" not in page
    assert "No space left &lt;on&gt; the disk" in page


def test_the_pace_is_that_of_the_last_ten_minutes(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pace = Pace(10_000)
    assert (pace.clips_per_second, pace.eta_seconds) == (0.0, None)
    for second in range(1, 1201):
        clock[0] = float(second)
        pace.see(second * 2)
    assert pace.clips_per_second == pytest.approx(2)
    assert pace.eta_seconds == pytest.approx((10_000 - 2400) / 2)
    for second in range(1201, 1801):  # a second machine joins
        clock[0] = float(second)
        pace.see(2400 + (second - 1200) * 6)
    assert pace.clips_per_second == pytest.approx(6, rel=0.01)


# --- a real job --------------------------------------------------------------------------------


def test_a_job_can_be_watched_while_it_runs_and_leaves_the_full_report(tmp_path):
    """One clip is held back by a plugin, so that the job is surely in the middle."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    first = make_clip(raw / "early.mp4", seconds=2.5, size="192x144", options=X264)
    ffmpeg("-i", first, "-t", "2", *X264[:6], raw / "late.mp4")
    (raw / "text.mp4").write_text("no video\n")
    command = [
        sys.executable, "-m", "pipeline", "shards", "--dataset", "folder", "--root", str(raw),
        "--out", str(out), "--faces", "off", "--executor", "local", "--workers", "3",
        "--seconds-per-shard", "0.01", "--timeout", "500", "--metrics-port", "0",
        "--log-seconds", "0.2",
    ]  # fmt: skip
    environment = {**os.environ, "GLAV_PLUGINS": "glav_gate", "PYTHONPATH": str(PLUGINS)}
    with open(tmp_path / "log", "w") as log:
        job = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        url = None
        deadline = time.monotonic() + 500
        while time.monotonic() < deadline:
            said = re.search(r"metrics at (http\S+)", (tmp_path / "log").read_text())
            url = said and said[1]
            if url:
                with urllib.request.urlopen(url, timeout=20) as answer:
                    values, _ = metrics(answer.read().decode())
                if value(values, "glav_shards_committed") == 2:
                    break
            time.sleep(0.1)
        assert value(values, "glav_clips_total", outcome="sample") == 1
        assert value(values, "glav_clips_total", outcome="unsupported_format") == 1
        assert value(values, "glav_shards_running") == 1
        assert value(values, "glav_clips_to_do") == 1
        assert "This job is running" in (out / "report.html").read_text()
        (raw / "gate.txt").touch()
        assert job.wait(timeout=500) == 0
    finally:
        job.kill()
        job.wait()
    values, _ = metrics((out / "metrics.prom").read_text())
    assert value(values, "glav_job_running") == 0
    assert value(values, "glav_clips_total", outcome="sample") == 2
    index = json.loads((out / "shardindex.json").read_text())
    assert index["counts"]["samples"] == 2
    assert "The ledger closes." in (out / "report.html").read_text()
    lines = re.findall(
        r"^\d/3 clips, .* ETA (?:unknown|about \d.*)$", (tmp_path / "log").read_text(), re.M
    )
    assert len(lines) >= 2
