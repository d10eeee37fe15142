"""A run's page tells what a naive reading of its files tells, and never costs the run anything."""

import json
import logging
import re
import shutil
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.runs import metrics, toy
from tests.train.toy import Toy
from train import livepage, trackers
from train.__main__ import report as command
from train.best import Best
from train.curves import COLOURS, chance_in_training, envelope, facts_of, panels, smoothed
from train.errors import UsageError
from train.livepage import SHARE, LivePage
from train.page import jpeg_of
from train.pretrain import COMPLETE, pretrain
from train.record import read_metrics, read_run
from train.report import attention_of, report, unique_names

FIGURES = re.compile(r"<figcaption>(.*?) <code>(\w+)</code></figcaption>")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)


@pytest.fixture(scope="module")
def measured(ten: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with held-out measurements at steps 5, 10 and 15."""
    run = tmp_path_factory.mktemp("runs") / "measured"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trackers, "find_spec", lambda name: None)
        assert (
            pretrain(toy(ten, run, val_every=5, val_split="train", allow_overlap=True)) == COMPLETE
        )
    return run


def write_run(folder: Path, lines: list[dict[str, Any]], **config: Any) -> Path:
    """A run by hand: one rank, batches of 4."""
    folder.mkdir(parents=True)
    stored = {"method": "mine", "preset": "", "batch_size": 4, "model": {"tau": 1}, **config}
    (folder / "config.json").write_text(json.dumps(stored))
    (folder / "origin.json").write_text(json.dumps({"ranks": 2, "device": "cpu"}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


class Tables(HTMLParser):
    """Rows of all tables of a page, from top to bottom."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        self._inside = tag in ("td", "th")
        if self._inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data.strip()

    def row(self, name: str) -> list[str]:
        return next(row[1:] for row in self.rows if row[0] == name)


def page_of(run: Path, tmp_path: Path) -> str:
    return report([str(run)], tmp_path / "page.html").read_text()


# --- what it tells ------------------------------------------------------------------------------


def test_its_numbers_are_those_of_a_naive_reading(measured: Path, tmp_path: Path) -> None:
    tables = Tables(page_of(measured, tmp_path))
    losses = [line["loss"] for line in metrics(measured) if "loss" in line]
    held = {line["step"]: line["val_loss"] for line in metrics(measured) if "val_loss" in line}
    end, last, best, swapped, gap, shifted, chance = tables.row("Loss")
    assert float(end) == pytest.approx(sum(losses) / len(losses), rel=1e-4)  # 15 steps, under 20
    assert float(last) == pytest.approx(held[15], rel=1e-4)
    best_step = min(held, key=held.__getitem__)
    assert best == f"{held[best_step]:.5g} (step {best_step})"
    assert (swapped, gap, shifted, chance) == ("-", "-", "-", "-")
    assert tables.row("method") == ["toy, preset toy"]
    assert tables.row("progress") == ["step 15; epoch 5.00 of 5"]
    assert tables.row("batch") == ["3 clips a device x 1 ranks x 1 accumulated = 3 a step"]
    assert tables.row("clips") == ["10 of split train, in 2 shards of 1 set"]
    assert tables.row("state")[0].startswith("finished, 15 steps, 5.0 epochs; last step at 20")
    (said,) = tables.row("checkpoint best")
    assert said == f"step-{best_step:08d}.pt, chosen by loss ({held[best_step]:.4f})"
    assert tables.row("demo-glcm")[:5] == ["10", "10", "0", "2", "yes"]
    assert tables.row("lr") == ["0.001"]  # of the configuration


def test_controls_stand_in_the_row_of_their_fact(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": 9.0, "thing_r1": 0.3} for step in (1, 2)]
    facts = {"thing_r1": 0.5, "thing_r1_swapped": 0.2, "thing_r1_gap": -0.3,
             "thing_r1_shifted": 0.15, "thing_r1_chance": 0.1}  # fmt: skip
    held = {"step": 2, "val_loss": 8.0, **{f"val_{name}": value for name, value in facts.items()}}
    run = write_run(tmp_path / "run", [*lines, held])
    html = page_of(run, tmp_path)
    row = Tables(html).row("thing_r1")
    controls = ["0.2", "-0.3", "0.15", "0.1, in training 0.125"]
    assert row == ["0.3", "0.5", "0.5 (step 2)", *controls]
    assert [name for _, name in FIGURES.findall(html)] == ["loss", "thing_r1", "thing_r1_gap"]


def test_chance_of_retrieval_in_a_batch_counts_the_clips_of_all_ranks(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 1.0, "new_r1": 0.5, "other": 1.0}]
    run = read_run(str(write_run(tmp_path / "all", lines)))
    assert chance_in_training(run, "new_r1") == 1 / 8
    assert chance_in_training(run, "other") is None
    alone = read_run(str(write_run(tmp_path / "alone", lines, model={"gather": False})))
    assert chance_in_training(alone, "new_r1") == 1 / 4
    (run.folder / "origin.json").unlink()
    assert chance_in_training(read_run(str(run.folder)), "new_r1") is None


def test_a_plugins_facts_are_drawn_under_their_own_names(measured: Path, tmp_path: Path) -> None:
    html = page_of(measured, tmp_path)
    titles = {name: title for title, name in FIGURES.findall(html)}
    written = {name.removeprefix("val_") for line in metrics(measured) for name in line
               if line[name] is not None} - {"step", "epoch", "time", "step_seconds"}  # fmt: skip
    assert titles.keys() == written
    assert titles["video_norm"] == "video_norm"
    assert html.count("data:image/png;base64,") == len(titles)
    assert "video_norm" in {row[0] for row in Tables(html).rows}


def test_what_one_curve_tells_has_one_panel(tmp_path: Path) -> None:
    both = {"step": 1, "loss": 1.0, "step_seconds": 2.0, "clips_per_second": 4.0}
    run = read_run(str(write_run(tmp_path / "both", [both])))
    assert facts_of([run]) == ["loss", "clips_per_second"]
    alone = read_run(str(write_run(tmp_path / "alone", [{"step": 1, "step_seconds": 2.0}])))
    assert facts_of([alone]) == ["step_seconds"]


def test_runs_without_held_out_lines_or_any_line_have_a_page(
    undisturbed: Path, tmp_path: Path
) -> None:
    html = page_of(undisturbed, tmp_path)
    assert Tables(html).row("checkpoint best") == [
        "none yet: nothing was measured on held-out clips"
    ]
    assert Tables(html).row("Loss")[1:3] == ["-", "-"]
    nothing = page_of(write_run(tmp_path / "nothing", []), tmp_path)
    assert "No step was measured yet" in nothing
    assert "<img" not in nothing


def test_a_run_that_only_knows_its_config_has_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [{"step": 1, "loss": 1.0}])
    (run / "origin.json").unlink()
    tables = Tables(page_of(run, tmp_path))
    assert tables.row("commit") == ["not recorded"]
    assert tables.row("clips") == ["sets not recorded"]


def test_a_page_opens_offline_and_is_small(measured: Path, tmp_path: Path) -> None:
    html = page_of(measured, tmp_path)
    assert len(html) < 2e6
    assert "<script" not in html
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>]*)""", html)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)


def test_a_long_run_has_a_page_of_the_same_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=30_000)
    lines = [{"step": i + 1, "loss": 5 + x, "x": x} for i, x in enumerate(noise.tolist())]
    assert len(page_of(write_run(tmp_path / "run", lines), tmp_path)) < 3e5


# --- what it reads --------------------------------------------------------------------------------


def test_steps_that_were_done_again_count_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = [{"step": step, "loss": 1.0, "gone": 1.0} for step in range(1, 9)]
    held = {"step": 6, "val_loss": 7.0}
    again = [{"step": step, "loss": 2.0} for step in (5, 6)]
    lines = [*first[:6], held, *first[6:], *again, {"step": 6, "val_loss": 3.0}]
    path = write_run(tmp_path / "run", lines) / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 7, "lo')
    found = {name: dict(zip(*map(np.ndarray.tolist, series), strict=True))
             for name, series in read_metrics(path).items()}  # fmt: skip
    assert found == {
        "loss": {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 2.0, 6: 2.0},
        "gone": {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0},
        "val_loss": {6: 3.0},
    }
    assert "1 lines that are no JSON were left out" in caplog.text
    with path.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in [*first[:3], first[2]])
    assert read_metrics(path)["loss"].steps.tolist() == [1, 2, 3]  # the last one again


def test_a_resumed_run_is_drawn_like_an_undisturbed_one(
    ten: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    pretrain(toy(ten, run, max_steps=6))
    pretrain(toy(ten, run))
    ours, theirs = (read_run(str(folder)).series["loss"] for folder in (run, undisturbed))
    assert ours.steps.tolist() == list(range(1, 16))
    assert ours.values.tolist() == theirs.values.tolist()


def test_the_signal_that_chose_the_best_is_told(tmp_path: Path) -> None:
    lines = [{"step": 3, "val_loss": 2.0, "val_a2v_r1": 0.5, "val_knn_accuracy": 0.7}]
    run = write_run(tmp_path / "run", lines)
    assert read_run(str(run)).best() is None
    (run / "checkpoints").mkdir()
    (run / "checkpoints/best").write_text("step-00000003.pt\n")
    assert read_run(str(run)).best() == Best("knn_accuracy + a2v_r1", 0.6, 2.0)
    said = Tables(page_of(run, tmp_path)).row("checkpoint best")
    assert said == ["step-00000003.pt, chosen by knn_accuracy + a2v_r1 (0.6000)"]


@pytest.mark.parametrize("window", [1, 2, 3, 4, 7])
def test_smoothed_is_the_mean_of_the_values_around(window: int) -> None:
    values = np.random.default_rng(window).normal(size=11)
    around = [values[max(i - window // 2, 0) : i - window // 2 + window] for i in range(11)]
    assert np.allclose(smoothed(values, window), [part.mean() for part in around])
    assert max(map(len, around)) == window


def test_spikes_of_a_long_run_are_not_lost() -> None:
    values = np.zeros(10_000)
    values[[17, 9_999]] = 5, -7
    steps = np.arange(10_000)
    fewer, shown = envelope(steps, values)
    assert len(shown) <= 2000
    assert fewer[shown == 5] == pytest.approx(17, abs=10)
    assert fewer[shown == -7] == pytest.approx(9_999, abs=10)
    assert envelope(steps[:50], values[:50])[1].tolist() == values[:50].tolist()


# --- beside the curves ----------------------------------------------------------------------------


def test_what_localization_left_is_in_the_page(tmp_path: Path) -> None:
    from matplotlib.image import imsave

    run = write_run(tmp_path / "run", [{"step": 1, "loss": 1.0}])
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 255
    picture = run / "eval/localization-train/attention-train.png"
    (picture.parent / "train").mkdir(parents=True)
    imsave(picture, red)
    numbers = {"n": 7, "low": 2.0, "high": 3.0}
    metrics = [
        {"name": "mass_ratio", "value": 2.345, **numbers},
        {"name": "mass_ratio:centre", "value": 1.5, "n": 7, "low": None, "high": None},
        {"name": "mass_ratio:other_class", "value": 1.75, "n": 7, "low": None, "high": None},
    ]
    round_file = picture.parent / "train/round.json"
    round_file.write_text(json.dumps({"metrics": metrics}))
    html = page_of(run, tmp_path)
    assert Tables(html).row("mass_ratio") == ["7", "2.35 [2.00, 3.00]", "-", "1.75", "1.50", "-"]
    assert "Where the model listens: localization-train, train" in html
    assert f"data:image/jpeg;base64,{jpeg_of(picture)}" in html
    assert "data:image/webp" not in html
    picture.with_suffix(".webp").write_bytes(b"moving")
    assert "data:image/webp;base64,bW92aW5n" in page_of(run, tmp_path)
    round_file.unlink()
    assert attention_of(run)[0]["rows"] == []


def test_jpegs_show_what_the_png_shows(tmp_path: Path) -> None:
    import base64

    import simplejpeg
    from matplotlib.image import imsave

    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, 24:] = (250, 120, 10)
    imsave(tmp_path / "a.png", picture)
    shown = simplejpeg.decode_jpeg(base64.b64decode(jpeg_of(tmp_path / "a.png")))
    assert shown.shape == picture.shape
    assert np.abs(shown.astype(int) - picture)[:, [4, 40]].max() < 12


# --- several runs ---------------------------------------------------------------------------------


def test_several_runs_share_the_panels_under_what_differs(
    ten: Path, measured: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    pretrain(toy(ten, other, lr=0.01, max_steps=4))
    path = report([str(measured), str(other)])
    assert path == other / "compare.html"
    html = path.read_text()
    tables = Tables(html)
    assert tables.row("lr") == ["0.001", "0.01"]
    assert tables.row("max_steps") == ["null", "4"]
    assert not [row for row in tables.rows if row[0] == "batch_size"]  # the same in both
    assert tables.row("progress") == ["step 15; epoch 5.00 of 5", "step 4; epoch 1.33 of 5"]
    loss = [line["loss"] for line in metrics(other)]
    assert float(tables.row("loss, end")[1]) == pytest.approx(sum(loss) / len(loss), rel=1e-4)
    assert tables.row("Loss")[1] == f"- ({sum(loss) / len(loss):.5g})"
    assert html.count("<figure>") == len(facts_of([read_run(str(measured)), read_run(str(other))]))
    by_run = panels([read_run(str(measured)), read_run(str(other))])["Losses"][0].curves
    assert [(curve.role, curve.run) for curve in by_run] == [
        ("training", 0), ("held out", 0), ("training", 1),
    ]  # fmt: skip


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / above / "run", []) for above in ("a", "b")]
    runs = [read_run(str(folder)) for folder in folders]
    assert unique_names(runs) == ["a/run", "b/run"]
    assert unique_names([runs[0], runs[0]]) == ["run", "run"]


def test_the_command_prints_the_page_and_refuses_what_is_no_run(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "new" / "x.html"
    assert command([str(measured), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text().startswith("<!doctype html>")
    with pytest.raises(UsageError, match="there is no run"):
        command([str(tmp_path / "nothing")])
    with pytest.raises(UsageError, match="8 runs; no more than 7 colours"):
        command([str(measured)] * (len(COLOURS) + 1))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="pip install matplotlib"):
        command([str(measured)])


# --- while a run goes on --------------------------------------------------------------------------


def test_pretrain_leaves_a_page_at_each_measurement_and_at_the_end(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    seen = []
    forward = Toy.forward

    def look(self: Any, batch: Any) -> Any:
        page = run / "report.html"
        seen.append(Tables(page.read_text()).row("progress") if page.is_file() else None)
        return forward(self, batch)

    monkeypatch.setattr(Toy, "forward", look)
    monkeypatch.setattr(livepage, "SHARE", 1e9)  # however long a page takes
    pretrain(
        toy(ten, run, page=True, val_every=5, val_split="train", allow_overlap=True, max_steps=12)
    )
    during = [None] * 5, [["step 5; epoch 1.67 of 5"]], [["step 10; epoch 3.33 of 5"]]
    assert seen[:5] == during[0]
    assert during[1][0] in seen
    assert seen[-1] == during[2][0]
    end = Tables((run / "report.html").read_text())
    assert end.row("progress") == ["step 12; epoch 4.00 of 5"]
    assert end.row("state")[0].startswith("is not finished after step 12")
    pretrain(toy(ten, run, page=True, val_every=5, val_split="train", allow_overlap=True))
    assert Tables((run / "report.html").read_text()).row("state")[0].startswith("finished, 15")
    assert "page" not in caplog.text


def test_without_pages_there_is_none(ten: Path, tmp_path: Path) -> None:
    pretrain(toy(ten, tmp_path / "run", max_steps=1))
    assert not (tmp_path / "run/report.html").exists()


def test_a_page_is_not_written_more_often_than_its_price_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = [1000.0], []

    def takes_three_seconds(names: list[str]) -> None:
        written.append(now[0])
        now[0] += 3

    monkeypatch.setattr("train.report.report", takes_three_seconds)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    page = LivePage(tmp_path)
    for _ in range(1000):
        page.update()
        now[0] += 1
    assert written[:2] == [1000, 1003 + 3 / SHARE]
    assert len(written) * 3 <= SHARE * (now[0] - 1000) + 3
    before = len(written)
    page.write()  # the end, at any price
    assert len(written) == before + 1


def no_matplotlib(run: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "matplotlib.figure", None)


def no_room(run: Path, patch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    patch.setattr("train.report.write_atomically", full)


def a_fault(run: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("train.curves.drawn", lambda *arguments: 1 / 0)


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (no_matplotlib, "no page of this run: .*matplotlib.*pip install matplotlib"),
        (no_room, "could not be written .*No space left on device"),
        (a_fault, "the run goes on without it\n(.*\n)+ZeroDivisionError"),
    ],
)
def test_a_page_that_cannot_be_made_costs_a_run_a_log_line(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    breaks: Callable[[Path, pytest.MonkeyPatch], None], said: str,
) -> None:  # fmt: skip
    run = tmp_path / "run"
    breaks(run, monkeypatch)
    with caplog.at_level(logging.WARNING):
        config = toy(
            ten, run, page=True, val_every=1, val_split="train", allow_overlap=True, max_steps=2
        )
        assert pretrain(config) == COMPLETE
    assert re.search(said, caplog.text)
    assert len([line for line in metrics(run) if "loss" in line]) == 2
    assert not (run / "report.html").exists()
    missing = [line for line in caplog.messages if "no page of this run" in line]
    assert len(missing) == (1 if breaks is no_matplotlib else 0)  # said once, not at each step


def test_a_page_is_made_where_the_run_was_copied_to(measured: Path, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere"
    shutil.copytree(measured, copied)
    assert report([str(copied)]) == copied / "report.html"


def test_a_place_that_cannot_be_written_is_a_sentence(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"page cannot be written: .*; name a FILE with --out"):
        command([str(undisturbed), "--out", str(tmp_path / "file/page.html")])
