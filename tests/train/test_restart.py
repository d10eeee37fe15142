"""Repeating a run, and going on with other ranks, workers or processes."""

import json
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.train.ramps import mixture_of
from tests.train.runs import assert_like, metrics, same, toy
from tests.train.test_pretrain_processes import command, start, wait_for_lines
from train import checkpoint, trackers
from train.__main__ import COMMANDS, pretrain_config
from train.errors import UsageError
from train.methods import preset_named
from train.plan import Plan
from train.pretrain import PREEMPTED, pretrain
from train.restart import batches_used

REPOSITORY = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)


# --- --config -------------------------------------------------------------------------------------


def test_a_stored_config_repeats_the_run(undisturbed: Path, tmp_path: Path) -> None:
    words = ["--config", str(undisturbed / "config.json"), "--run", str(tmp_path / "again")]
    pretrain(pretrain_config(words))
    assert_like(tmp_path / "again", undisturbed)


def test_flags_beside_a_stored_config_win(undisturbed: Path) -> None:
    stored = str(undisturbed / "config.json")
    config = pretrain_config(["--config", stored, "--lr", "0.5", "--model.n-slow", "4"])
    assert (config.lr, config.model.n_slow, config.batch_size) == (0.5, 4, 3)
    with pytest.raises(UsageError, match=r"--method glcm, but .* is of the method 'toy'"):
        pretrain_config(["--config", stored, "--method", "glcm"])
    with pytest.raises(UsageError, match=r"--preset tiny, but .* is of the preset 'toy'"):
        pretrain_config(["--config", stored, "--preset", "tiny"])


@pytest.mark.parametrize("text", ["[1]", '{"lr": 1}', "{", None])
def test_what_is_no_config_is_a_sentence(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"expected runs/NAME/config\.json"):
        pretrain_config(["--config", str(path)])


def test_code_and_sets_of_a_run_are_known(undisturbed: Path, ten: Path) -> None:
    origin = json.loads((undisturbed / "origin.json").read_text())
    git = ["git", "-C", str(REPOSITORY)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    assert origin["git"]["commit"] == head.stdout.strip()
    assert set(origin["git"]) == {"commit", "diff", "untracked"}
    assert origin["sets"]["demo-glcm"]["clips"] == 10
    assert origin["sets"]["demo-glcm"]["path"] == str(ten)
    assert origin["torch"] == torch.__version__


def test_uncommitted_changes_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout of its own, with one changed line."""
    package = tmp_path / "train"
    package.mkdir()
    (package / "checkpoint.py").write_text("old\n")
    identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    (package / "checkpoint.py").write_text("new\n")
    (tmp_path / "notes.txt").write_text("of mine\n")
    (package / "loose.py").write_text("x = 1\n")
    monkeypatch.setattr(checkpoint, "__file__", str(package / "checkpoint.py"))
    state = checkpoint.git_state()
    assert re.fullmatch("[0-9a-f]{40}", state["commit"])
    assert "-old\n+new\n" in state["diff"]
    assert state["untracked"] == ["notes.txt", "train/loose.py"]
    monkeypatch.setattr(checkpoint, "MAX_DIFF_CHARACTERS", 50)
    monkeypatch.setattr(checkpoint, "MAX_NAMES", 1)
    cut = checkpoint.git_state()
    more = len(state["diff"]) - 50
    expected = f"{state['diff'][:50]}\n... {more} characters more are not recorded\n"
    assert cut["diff"] == expected
    assert cut["untracked"] == ["notes.txt", "... and 1 more"]


# --- other ranks, other workers -------------------------------------------------------------------


def test_another_number_of_ranks_goes_on_at_the_same_clip(ten: Path, tmp_path: Path) -> None:
    """Four clips a step, whoever reads them: 1 x 4, then 2 x 2, then 4 x 1."""
    pretrain(toy(ten, tmp_path / "run", batch_size=4, max_steps=3))
    saved = checkpoint.load(tmp_path / "run")
    assert saved["position"] == {"epoch": 1, "clips": 4}
    mixture = mixture_of(str(ten))
    whole = list(Plan(mixture, 0, 4).order(1)[4:8, 1])
    for world in (1, 2, 4):
        plans = [Plan(mixture, 0, 4 // world, world, rank) for rank in range(world)]
        used = batches_used(saved, plans[0])
        draws = [draw for plan in plans for draw in next(plan.batches(plan.position(used)))]
        assert [draw.row for draw in draws] == whole


def test_a_checkpoint_of_another_number_of_ranks_says_what_is_drawn_anew(
    ten: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that two ranks left, as far as random numbers go."""
    run = tmp_path / "run"
    pretrain(toy(ten, run, max_steps=2))
    saved = checkpoint.load(run)
    content = {name: x for name, x in saved.items() if name not in ("format", "step")}
    checkpoint.save(run / "checkpoints", 2, {**content, "random": saved["random"] * 2}, 3)
    pretrain(toy(ten, run, max_steps=4))
    assert "the checkpoint is of 2 ranks, there are 1 now: going on at the same clip" in caplog.text
    assert [line["step"] for line in metrics(run)] == [1, 2, 3, 4]


def test_weights_of_another_method_are_no_beginning(
    ten: Path, undisturbed: Path, tmp_path: Path
) -> None:
    model = replace(preset_named("glcm", "tiny"), frames=8, n_slow=2, crop=32, width=8)
    config = replace(toy(ten, tmp_path / "run", init=undisturbed), method="glcm", model=model)
    with pytest.raises(UsageError, match=r"none of its weights fits; it is of the method 'toy'"):
        pretrain(config)


@pytest.mark.slow
def test_kill_at_any_step_and_sigterm_within_an_epoch(
    ten: Path, tmp_path: Path, undisturbed: Path
) -> None:
    """One process; steps 2 and 8 are within epochs of 3 batches."""
    run = tmp_path / "run"
    flags = ("--model.seconds", "0.2", "--checkpoint-every", "1", "--workers", "2")
    for lines, how in ((2, signal.SIGKILL), (5, signal.SIGTERM), (8, signal.SIGKILL)):
        process = start(command(ten, run, *flags))
        wait_for_lines(run, lines, process)
        process.send_signal(how)
        process.communicate(timeout=280)
        assert process.returncode == (PREEMPTED if how == signal.SIGTERM else -how)
    last = start(command(ten, run, *flags))
    text, _ = last.communicate(timeout=280)
    assert last.returncode == 0, text
    assert same(run) == same(undisturbed)


def test_the_same_clips_in_the_same_order_after_going_on(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model was given, by key and window."""
    from tests.train.toy import Toy

    seen: dict[str, list[tuple[str, int]]] = {"whole": [], "parts": []}
    original = Toy.forward
    for name, stops in (("whole", [None]), ("parts", [1, 5, 11, None])):
        given = seen[name]

        def forward(self: Toy, batch: object, given: list[tuple[str, int]] = given) -> object:
            given.extend(zip(batch.keys, batch.start.tolist(), strict=True))  # type: ignore[attr-defined]
            return original(self, batch)

        monkeypatch.setattr(Toy, "forward", forward)
        for stop in stops:
            pretrain(replace(toy(ten, tmp_path / name), max_steps=stop))
    assert seen["whole"] == seen["parts"]
    assert len(seen["whole"]) == 45


# --- log lines ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_log_lines_say_time_host_and_rank(ten: Path, tmp_path: Path) -> None:
    process = start(command(ten, tmp_path / "run", "--max-steps", "1"))
    text, _ = process.communicate(timeout=280)
    stamped = rf"\d\d:\d\d:\d\d {re.escape(socket.gethostname())}\[0\] "
    told = [line for line in text.splitlines() if "batch: 3 clips" in line or "step 1/" in line]
    assert len(told) == 2, text
    assert all(re.match(stamped, line) for line in told)


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pretrain", ["--config runs/first/config.json", "torchrun", "--val-every", "--profile"]),
        ("check", ["GLAV_PLUGINS=my_package", "--fall", "--shards"]),
        ("diff", ["name of a folder below runs/, or a path"]),
    ],
)
def test_help_teaches_with_examples(
    capsys: pytest.CaptureFixture[str], name: str, words: list[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        COMMANDS[name](["--help"])
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert all(word in told for word in words), told
