"""CTC decoding against a sum over all paths, torch's loss, and texts made by hand."""

import itertools
import math

import numpy as np
import pytest
import torch

from train import ctc
from train.errors import UsageError


def frames_of(seed, frames, classes, sharpness=0.7):
    """(T, C) log-probabilities, drawn."""
    return np.log(np.random.default_rng(seed).dirichlet(np.full(classes, sharpness), frames))


def merged(path):
    return tuple(label for label, _ in itertools.groupby(path) if label)


def all_paths(log_probabilities):
    """Probability of every sequence of labels, over all C^T paths."""
    frames, classes = log_probabilities.shape
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(classes), repeat=frames):
        chance = math.exp(sum(log_probabilities[t, c] for t, c in enumerate(path)))
        found[merged(path)] = found.get(merged(path), 0) + chance
    return found


def spelled(path, certainty=0.9):
    """(1, T, CLASSES) log-probabilities that mean a path; `_` is the blank."""
    order = "_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 '"
    labels = [order.index(character) for character in path]
    frames = np.full((len(labels), ctc.CLASSES), (1 - certainty) / (ctc.CLASSES - 1))
    frames[np.arange(len(labels)), labels] = certainty
    return np.log(frames)[None]


# --- labels -----------------------------------------------------------------------------------


def test_labels_are_letters_digits_space_apostrophe_behind_the_blank():
    assert ctc.CLASSES == 1 + 26 + 10 + 2
    assert ctc.encode("AZ09 'A") == [1, 26, 27, 36, 37, 38, 1]
    assert ctc.encode("Don't  stop\n") == ctc.encode("DON'T STOP")
    assert ctc.encode("") == []


def test_every_character_comes_back():
    text = "BIN BLUE AT F 2 NOW" + ctc.CHARSET.replace(" ", "")
    assert ctc.decode(ctc.encode(text)) == text


def test_what_is_no_character_and_no_label():
    with pytest.raises(UsageError, match=r"'!', 'É'"):
        ctc.encode("é!")
    for label in (0, 39, -1):
        with pytest.raises(UsageError, match=f"{label} is no label"):
            ctc.decode([1, label])


@pytest.mark.parametrize("text", ["", "A", "AA", "HELLO", "AAA B", "ABAB"])
def test_with_the_required_frames_a_loss_is_finite_and_with_one_less_it_is_not(text):
    labels = ctc.encode(text)
    needed = ctc.required_frames(labels)
    for frames in {needed, max(needed - 1, 0)} - {0}:
        uniform = torch.full((frames, 1, ctc.CLASSES), 1 / ctc.CLASSES).log()
        loss = torch.nn.functional.ctc_loss(
            uniform, torch.tensor([labels]), torch.tensor([frames]), torch.tensor([len(labels)])
        )
        assert bool(torch.isfinite(loss)) == (frames >= needed)


# --- greedy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("HH_EE_L_LLOO_", "HELLO"),
        ("HHELLO", "HELO"),
        ("____", ""),
        ("AA AA", "A A"),
        ("A__A", "AA"),
        ("2_2", "22"),
    ],
)
def test_best_path_merges_repeats_and_then_drops_blanks(path, text):
    frames = np.array([len(path)])
    assert ctc.transcribe(spelled(path), frames) == [text]
    assert ctc.transcribe(spelled(path), frames, beam_width=10) == [text]


def test_only_an_utterances_own_frames_are_read():
    batch = np.concatenate([spelled("A_B_C"), spelled("AABBC")])
    assert ctc.transcribe(batch, [3, 5]) == ["AB", "ABC"]
    assert ctc.transcribe(batch, [0, 1], beam_width=3) == ["", "A"]
    assert ctc.transcribe(torch.tensor(batch), torch.tensor([5, 4])) == ["ABC", "AB"]


# --- beam -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_a_beam_that_drops_nothing_sums_all_paths(seed):
    log_probabilities = frames_of(seed, frames=2 + seed % 4, classes=3 + seed % 2)
    truth = all_paths(log_probabilities)
    found = ctc.beam_search(log_probabilities, width=10_000)
    assert {h.labels: math.exp(h.log_probability) for h in found} == pytest.approx(truth)
    assert found[0].labels == max(truth, key=lambda labels: truth[labels])
    chances = [h.log_probability for h in found]
    assert chances == sorted(chances, reverse=True)


def test_the_beam_finds_what_the_best_path_misses():
    """Graves' case: blank wins each frame, but the paths that say A sum to more."""
    frames = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert ctc.best_path(frames) == []
    best = ctc.beam_search(frames, 2)[0]
    assert best.labels == (1,)
    assert math.exp(best.log_probability) == pytest.approx(1 - 0.36)


@pytest.mark.parametrize("seed", range(3))
def test_the_probabilities_of_a_beam_that_drops_nothing_are_those_of_torchs_loss(seed):
    """On half a million paths: CTC's own forward sum, by torch."""
    log_probabilities = frames_of(seed, frames=12, classes=3)
    for hypothesis in ctc.beam_search(log_probabilities, 10_000)[:200:10]:
        loss = torch.nn.functional.ctc_loss(
            torch.tensor(log_probabilities)[:, None],
            torch.tensor([hypothesis.labels]),
            torch.tensor([12]),
            torch.tensor([len(hypothesis.labels)]),
            reduction="none",
        )
        assert hypothesis.log_probability == pytest.approx(-loss.item())


def test_a_narrow_beam_never_counts_a_path_that_is_not_there():
    for seed in range(5):
        log_probabilities = frames_of(seed, frames=5, classes=4)
        truth = all_paths(log_probabilities)
        for hypothesis in ctc.beam_search(log_probabilities, 3):
            assert math.exp(hypothesis.log_probability) <= truth[hypothesis.labels] * (1 + 1e-9)


@pytest.mark.parametrize(
    ("seed", "width", "sharpness"), [(17, 5, 0.5), (60, 3, 1.0), (358, 4, 2.0)]
)
def test_a_prefix_that_left_the_beam_and_came_back_is_counted_once(seed, width, sharpness):
    """Seeds found by search: here a prefix comes back while a longer one of it is still there."""
    found = ctc.beam_search(frames_of(seed, frames=40, classes=3, sharpness=sharpness), width)
    assert len({h.labels for h in found}) == len(found) == width


def test_certain_frames_have_no_other_hypothesis():
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(3)[[1, 1, 0, 1]])
    assert ctc.beam_search(certain) == [ctc.Hypothesis((1, 1), 0.0)]


# --- what cannot be decoded -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decode", "sentence"),
    [
        (lambda: ctc.best_path(np.full((2, 3), np.nan)), "NaN"),
        (lambda: ctc.best_path(np.zeros(3)), r"not \(3,\)"),
        (lambda: ctc.beam_search(np.zeros((2, 3))), "apply log_softmax"),
        (lambda: ctc.beam_search(frames_of(0, 2, 3), 0), "width 0"),
        (lambda: ctc.transcribe(np.zeros((1, 2, 5)), [2]), r"needed are \(B, T, 39\)"),
        (lambda: ctc.transcribe(spelled("AB"), [3]), r"3\.\.3 of T=2"),
        (lambda: ctc.transcribe(spelled("AB"), [1, 1]), r"\(2,\) lengths"),
    ],
)
def test_what_cannot_be_decoded_is_said(decode, sentence):
    with pytest.raises(UsageError, match=sentence):
        decode()
