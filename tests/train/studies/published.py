"""Studies as tests make them up, and how they are published."""

import json
from typing import Any

from train.studies.catalogue import STUDIES
from train.studies.evidence import EvidenceConfig, committed, evidence
from train.studies.table import Result, facts_of

MULTI, SINGLE = "No pooling & multiple pos. pairs", "Avg pooling & single pos. pair"


def study_of(
    values: dict[str, list[float]], first_seed: int = 0, clips: str = "c", settings: str = "b."
) -> dict[str, Any]:
    """A study.json of table 7: rows with a value a seed, in percent of a task `planted_words`."""
    score = {"name": "top1", "unit": "fraction", "higher_is_better": True, "low": 0, "high": 1}
    results = [
        Result(row, seed, {"planted_words": {
            **score, "value": value / 100, "index_sha256": clips,
            "result": f"planted/{row}-{seed}/eval/planted_words",
        }})
        for row, each in values.items()
        for seed, value in enumerate(each, first_seed)
    ]  # fmt: skip
    return facts_of(STUDIES["table7"], "table7", {"planted": settings}, results)


def publish(places: EvidenceConfig, facts: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What is said, and what then is in the repository."""
    (places.studies / "table7/study.json").write_text(json.dumps(facts))
    return evidence(places), committed(places.docs)["table7"]
