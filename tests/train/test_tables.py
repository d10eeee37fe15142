"""The papers' tables: their numbers against the source, ours in the cells where they belong."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from train import tables, tabletext
from train.errors import UsageError
from train.papers import PAPERS, TABLES
from train.tables import filled, find_results, others
from train.tabletext import html, markdown

NUMBERS = Path(__file__).resolve().parents[3] / "shared" / "papers" / "numbers.yaml"
CHECKPOINT = {
    "path": "runs/glcm-tiny/checkpoints/00000300.pt", "sha256": "ab12cd34ef", "method": "glcm",
    "step": 300,
}  # fmt: skip


def metric(name="top1", value=0.5, low=0.4, high=0.61, unit="fraction"):
    return {"name": name, "value": value, "low": low, "high": high, "unit": unit}


def result(task="esc50", protocol="finetune", metrics=None, **changes):
    metrics = metrics or [metric()]
    return {
        "task": task, "dataset": task, "protocol": protocol, "metric": metrics[0],
        "metrics": metrics, "n_scored": 400, "n_expected": 400, "coverage": 1.0, "splits": [],
        "settings": {"modality": "V", "pictures": "frames", "features": "both", "clips": 10,
                     "pooling": "full_avg", "crops": 1},
        "model": {"method": "glcm", "preset": "tiny"}, "checkpoint": CHECKPOINT, "notes": [],
        **changes,
    }  # fmt: skip


def settings(**changes):
    return {**result()["settings"], **changes}


def table(key, *results):
    """The rows of ours in a table, as {label: {column: text}}, and its foot notes."""
    one = next(one for one in filled(results) if one.table.key == key)
    rows = {row.keys[0]: {name: cell.text for name, cell in row.cells.items()} for row in one.rows}
    return rows, one.notes


# --- the papers' numbers ----------------------------------------------------------------------


@pytest.mark.skipif(not NUMBERS.is_file(), reason="needs ../shared/papers")
def test_every_number_is_the_one_of_the_source():
    yaml = pytest.importorskip("yaml")
    source = yaml.safe_load(NUMBERS.read_text())
    theirs = {(one["paper"], one["table"]): one for one in source["tables"]}
    assert source["papers"] == PAPERS
    compared = 0
    for one in TABLES:
        raw = theirs[one.key]
        assert [*one.keys, *(column.name for column in one.columns)] == raw["cols"]
        assert [[*keys, *numbers] for keys, numbers in one.rows] == raw["rows"]
        compared += len(raw["rows"])
    assert compared > 150


def test_a_few_numbers_by_heart_of_the_papers():
    found = {one.key: dict(one.rows) for one in TABLES}
    assert found["glcm", "1"]["Ours", "ResNet18", "K-AV-240K"] == (45.1, 89.2)
    assert found["glcm", "4"][("PSP",)] == (77.8, 73.5)
    assert found["avid", "3"]["AVID+CMA", "Audioset", "32x224"] == (91.5, 64.7)
    assert found["tempssl", "5"][("Ours R3D-34",)][0] == 85.2
    assert found["coattention", "1"]["Ours CMA", 15, "Audioset-240K"] == (65.3, 62.6)


def test_only_error_rates_are_better_when_lower_and_keys_are_as_many_as_said():
    for one in TABLES:
        for column in one.columns:
            assert column.higher_is_better == ("WER" not in column.name)
        for keys, numbers in one.rows:
            assert len(keys) == len(one.keys)
            assert len(numbers) == len(one.columns)


def test_what_columns_are_looked_for_exist_in_some_table():
    names = {column.name for one in TABLES for column in one.columns}
    assert set(tables.COLUMNS) <= names
    for key, wanted in tables.OF_TABLE.items():
        assert set(wanted) <= {c.name for one in TABLES if one.key == key for c in one.columns}


# --- placing ----------------------------------------------------------------------------------


def test_where_nothing_was_run_every_cell_is_empty():
    for one in filled([]):
        assert one.rows == ()
        assert one.notes == ()
        assert tabletext.our_rows(one)[0][1] == [""] * len(one.table.columns)
    assert {("glcm", str(number)) for number in range(1, 11)} <= {o.table.key for o in filled([])}


def test_one_checkpoint_is_one_row_of_percents_with_intervals():
    rows, notes = table(
        ("glcm", "3"),
        result("ucf101", metrics=[metric(value=0.7512, low=0.74, high=0.762)]),
        result("esc50", settings=settings(modality="A", pictures="none")),
    )
    assert rows == {
        "GLAV glcm (glcm-tiny)": {
            "UCF101_top1": "75.1 [74.0, 76.2]", "ESC50_top1": "50.0 [40.0, 61.0]",
        }
    }  # fmt: skip
    assert len(notes) == 2
    assert notes[0].startswith("ucf101, finetune; 10 windows x 1 crops; 400 of 400 scored")


def test_protocols_go_to_their_own_columns():
    linear, tuned, svm = (
        result(protocol=name, metrics=[metric(value=value)])
        for name, value in (("linear", 0.11), ("finetune", 0.22), ("svm", 0.33))
    )
    everything = (linear, tuned, svm)
    label = "GLAV glcm (glcm-tiny), V"  # hand-made: of pictures, which is not usual for sounds
    assert table(("glcm", "10"), *everything)[0][label] == {
        "ESC50_LN": "11.0 [40.0, 61.0]", "ESC50_FT": "22.0 [40.0, 61.0]",
    }  # fmt: skip
    assert list(table(("glcm", "3"), *everything)[0][label].values()) == ["22.0 [40.0, 61.0]"]
    assert list(table(("avid", "4"), *everything)[0][label].values()) == ["33.0 [40.0, 61.0]"]


def test_each_task_finds_its_columns():
    """By hand: where a result of a task and protocol has to appear, and nowhere else."""
    expected = {
        ("lrs2", "finetune", "wer"): {"glcm": "1 5 6 7 8 9 10"},
        ("lrw", "finetune", "top1"): {"glcm": "1 5 6 7 8 9 10"},
        ("dfdc_mds", "finetune", "auc_video"): {"glcm": "2 5 6 7 8 9 10"},
        ("dfdc", "finetune", "auc_video"): {},  # the official test part: no paper's
        ("dfdc_folds", "finetune", "auc_video"): {},
        ("ave", "finetune", "segment_accuracy"): {"glcm": "4"},
        ("ave_weak", "finetune", "segment_accuracy"): {"glcm": "4"},
        ("hmdb51", "finetune", "top1"): {
            "glcm": "3 6 7 9 10", "avid": "3", "tempssl": "4", "coattention": "2 3",
        },
        ("hmdb51", "linear", "top1"): {"glcm": "10", "tempssl": "4"},
        ("kinetics400", "linear", "top1"): {"glcm": "10", "avid": "2"},
        ("dcase2013", "svm", "top1"): {"avid": "4"},
        ("esc50", "linear", "top1"): {"glcm": "10", "tempssl": "2 4"},
        ("vggsound", "linear", "top1"): {"tempssl": "6"},
        ("grid", "finetune", "wer"): {},
        ("dfdc_mds", "finetune", "auc_video_hard@0.6"): {},
    }  # fmt: skip
    for (task, protocol, name), places in expected.items():
        one = result(task, protocol, [metric(name)])
        found = {t.table.key for t in filled([one]) if t.rows}
        assert found == {(p, n) for p, numbers in places.items() for n in numbers.split()}, task
        assert others([one]) == ([] if places else [one])


def test_retrieval_goes_by_data_set_and_k_and_fingerprints_by_round():
    ucf = result("retrieval", "frozen", [metric("R@1", 0.3), metric("R@5", 0.5)], dataset="ucf101")
    assert table(("tempssl", "5"), ucf)[0]["GLAV glcm (glcm-tiny)"] == {
        "UCF101_R1": "30.0 [40.0, 61.0]", "UCF101_R5": "50.0 [40.0, 61.0]",
    }  # fmt: skip
    rounds = [
        {"name": name, "metrics": [metric("instance_R@1", value)]}
        for name, value in (("IP", 0.9), ("C", 0.2))
    ]
    prints = result("fingerprint", "frozen", [metric("instance_R@1", 0.55)], rounds=rounds)
    row = table(("tempssl", "1"), ucf, prints)[0]["GLAV glcm (glcm-tiny)"]
    assert row == {"UCF101_1NN": "30.0 [40.0, 61.0]", "AugVGG-C_R1": "20.0 [40.0, 61.0]"}


def test_what_was_looked_at_otherwise_is_a_row_of_its_own():
    rows, _ = table(
        ("glcm", "8"),
        result("lrw", settings=settings(pictures="lip")),
        result("lrw", settings=settings(pictures="frames")),
        result("lrw", settings=settings(pictures="frames", pooling="full_attention")),
        result("lrw", settings=settings(pictures="lip", features="l")),
    )
    name = "GLAV glcm (glcm-tiny)"
    assert list(rows) == [name, f"{name}, full frame", f"{name}, attention", f"{name}, features l"]


def test_modalities_of_deepfakes_have_columns_or_a_cell():
    both = [
        result("dfdc_mds", metrics=[metric("auc_video", value)],
               settings=settings(pictures="face", modality=modality))
        for modality, value in (("V", 0.6), ("V+A", 0.7))
    ]  # fmt: skip
    eight = table(("glcm", "8"), *both)[0]["GLAV glcm (glcm-tiny)"]
    assert eight["DFDC_AUC_V"].startswith("60.0")
    assert eight["DFDC_AUC_VA"].startswith("70.0")
    two = next(one for one in filled(both) if one.table.key == ("glcm", "2"))
    assert [row.keys[3] for row in two.rows] == ["V", "V+A"]
    assert next(iter(table(("glcm", "5"), *both)[0].values()))["DFDC_AUC"].startswith("60.0")


def test_a_second_result_of_a_kind_is_never_hidden():
    first, second = result("ucf101"), result("ucf101", metrics=[metric(value=0.9)])
    one = next(o for o in filled([first, second]) if o.table.key == ("glcm", "3"))
    assert [row.cells["UCF101_top1"].text[:4] for row in one.rows] == ["50.0", "90.0"]


def test_scratch_is_said_to_have_no_pretraining():
    scratch = result("ucf101", checkpoint=None)
    one = next(o for o in filled([scratch]) if o.table.key == ("glcm", "3"))
    assert one.rows[0].keys == ("GLAV scratch tiny", "tiny", "none")
    assert "no pretraining" in one.notes[0]


def test_an_incomplete_test_set_and_other_notes_are_foot_notes():
    part = result("ucf101", n_scored=3, n_expected=3783, coverage=3 / 3783)
    _, notes = table(("glcm", "3"), part)
    assert "3 of 3783 scored (coverage 0 %)" in notes[0]
    assert "NOT ALL of the benchmark's test set" in notes[0]
    said = result("ucf101", coverage=0.9999, notes=["--allow-missing: 1 test clips are not there"])
    _, notes = table(("glcm", "3"), said)
    assert "coverage 99.9 %" in notes[0]
    assert "--allow-missing: 1" in notes[0]
    assert "NOT ALL" not in notes[0]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (metric(value=0.1234, low=0.1, high=0.15), "12.3 [10.0, 15.0]"),
        (metric(low=None, high=None), "50.0 [no interval]"),
        (metric(value=None, low=None, high=None), "undefined"),
        (metric(value=0.6931, low=0.5, high=1.25, unit="nats"), "0.693 [0.500, 1.250]"),
    ],
)
def test_numbers_as_text(given, text):
    assert tables.shown(given) == text


# --- as text ----------------------------------------------------------------------------------


class Cells(HTMLParser):
    """The texts of all table cells, row by row."""

    def __init__(self):
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_markdown_and_html_hold_the_same_cells_and_rows_are_whole():
    results = [result("ucf101"), result("grid", metrics=[metric("wer")])]
    page = Cells()
    page.feed(html(filled(results), others(results)))
    lines = [
        [re.sub(r"^\*\*(.*)\*\*$", r"\1", cell.strip()) for cell in line[1:-1].split(" | ")]
        for line in markdown(filled(results), others(results)).splitlines()
        if line.startswith("|") and "---" not in line
    ]
    assert page.rows == lines
    assert any(row[0] == "GLAV: not run" for row in lines)
    assert ["GLAV glcm (glcm-tiny)", "tiny", "", "50.0 [40.0, 61.0] (1)", "", ""] in lines
    assert ["Ours (of the paper)", "ResNet18", "K-AV-240K", "90.1", "61.3", "80.1"] in lines
    assert sum(row[:2] == ["GLAV glcm (glcm-tiny)", "grid"] for row in lines) == 1


def test_names_of_runs_break_neither_markdown_nor_html():
    odd = {**CHECKPOINT, "path": "runs/a|b<script>/checkpoints/1.pt"}
    results = [result("ucf101", checkpoint=odd)]
    assert "<script>" not in html(filled(results))
    assert "a\\|b<script>" in markdown(filled(results))


# --- results on disk --------------------------------------------------------------------------


def test_results_are_found_below_runs(tmp_path):
    for name in ("a/eval/esc50", "b/eval/ucf101-linear"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "result.json").write_text(json.dumps(result(name.split("/")[-1])))
    assert [one["task"] for one in find_results(tmp_path)] == ["esc50", "ucf101-linear"]
    assert find_results(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"task": "esc50"}', json.dumps({**result(), "metrics": [{"name": "top1"}]})],
)
def test_what_is_no_result_is_said_with_its_path(tmp_path, content):
    path = tmp_path / "eval" / "esc50" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UsageError, match=f"{re.escape(str(path))} is no result"):
        find_results(tmp_path)
