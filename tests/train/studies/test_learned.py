"""What the objectives of Table 5 learned is told of each seed and corpus."""

from pathlib import Path

from train.studies.evidence import committed
from train.studies.learned import table as learned

DOCS = Path(__file__).parents[3] / "docs"


def test_what_the_objectives_learned_is_told_of_each_seed_and_corpus() -> None:
    rising = {"steps": [1, 2, 3, 4], "avc_accuracy": [0.4, 0.5, 0.6, 0.8]}
    falling = {"steps": [1, 2, 3, 4], "avc_accuracy": [0.5, 0.5, 0.25, 0.25]}
    curves = {"planted/avts-2": falling, "planted/avts-1": rising, "planted/avslowfast-1": {}}
    heads, rows = learned({"table5": {"curves": curves}})
    assert heads == ["objective", "finds", "by chance", "planted: at first; at last"]
    told = {(row[0], row[1]): row[2:] for row in rows}
    clip = "whether sound and pictures are of one clip"
    assert told["AVTS", clip] == ["0.50", "0.45, 0.50; 0.70, 0.25"], "means of two bins, by seed"
    assert told["AVSlowFast", clip] == ["0.50", ""], "another run's metric is not its"


def test_all_that_the_objectives_ask_for_is_in_the_committed_curves() -> None:
    heads, rows = learned(committed(DOCS))
    assert len(heads) == 5
    assert all(all(row[-2:]) for row in rows)
