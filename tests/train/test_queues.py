"""The queue of earlier vectors: against a plain list, and its gradient against autograd's own."""

import pytest
import torch
from torch.nn import functional as F

from train.objectives.queues import Queue


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def ordered(rows: torch.Tensor) -> torch.Tensor:
    """Rows by their first number: the ring may hold them in any order."""
    return rows[rows[:, 0].argsort()]


def test_first_in_first_out():
    """After each batch the rows are the last `size` vectors of a plain list, wherever they lie."""
    queue, held = Queue(size=7, width=3), []
    for number in range(6):
        batch = unit(3, 3, seed=number) * (number + 1)  # lengths are not kept
        queue.append(batch)
        held += F.normalize(batch, dim=1).tolist()
        rows = queue.entries[: int(queue.filled)]
        torch.testing.assert_close(ordered(rows), ordered(torch.tensor(held[-7:])))
    assert int(queue.written) == 18


def test_a_batch_larger_than_the_queue_leaves_its_last_vectors():
    queue, vectors = Queue(size=4, width=3), unit(10, 3)
    queue.append(vectors[:3])
    queue.append(vectors)
    torch.testing.assert_close(ordered(queue.entries), ordered(vectors[-4:]))


def test_neighbours_as_by_brute_force():
    queue, stored = Queue(size=50, width=8), unit(70, 8)
    for batch in stored.split(10):
        queue.append(batch)
    queries = unit(5, 8, seed=1)
    similarity, rows = queue.nearest(queries, 6)
    for query, found, places in zip(queries, similarity, rows, strict=True):
        cosines = sorted((float(query @ vector) for vector in stored[20:]), reverse=True)
        assert found.tolist() == pytest.approx(cosines[:6], abs=1e-6)
        assert (queue.entries[places] @ query).tolist() == pytest.approx(cosines[:6], abs=1e-6)


def test_rows_never_written_are_no_neighbours():
    queue = Queue(size=8, width=4)
    queue.append(unit(3, 4))
    scores = queue.scores(unit(2, 4, seed=1))
    assert scores.isfinite().sum(dim=1).tolist() == [3, 3]
    similarity, _ = queue.nearest(unit(2, 4, seed=1), 5)
    assert similarity.isneginf().sum(dim=1).tolist() == [2, 2]


@pytest.mark.parametrize("appended", [0, 4])
def test_the_gradient_is_that_of_the_rows_as_they_were(appended):
    """Autograd's own gradient of a product with a copy is the oracle."""
    queue = Queue(size=6, width=5)
    queue.append(unit(6, 5))
    weight = unit(3, 6, seed=2)
    ours, theirs = (unit(3, 5, seed=1).requires_grad_() for _ in range(2))
    expected = theirs @ queue.entries.clone().T
    scores = queue.scores(ours)
    if appended:
        queue.append(unit(appended, 5, seed=3))
    (scores.exp() * weight).sum().backward()
    (expected.exp() * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_gradient_that_comes_too_late_is_refused():
    queue = Queue(size=6, width=5)
    queue.append(unit(6, 5))
    scores = queue.scores(unit(3, 5, seed=1).requires_grad_())
    queue.append(unit(2, 5, seed=2))
    queue.append(unit(2, 5, seed=3))
    with pytest.raises(RuntimeError, match="appended to 2 times"):
        scores.sum().backward()


def test_its_state_is_its_buffers():
    one, other = Queue(size=6, width=5), Queue(size=6, width=5)
    one.append(unit(4, 5))
    other.load_state_dict(one.state_dict())
    for queue in (one, other):
        queue.append(unit(4, 5, seed=1))
    assert torch.equal(one.entries, other.entries)
    assert set(one.state_dict()) == {"entries", "written"}


def test_a_queue_of_nothing_is_refused():
    with pytest.raises(ValueError, match="a queue of 0 vectors"):
        Queue(size=0, width=4)
