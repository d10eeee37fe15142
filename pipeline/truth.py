"""Ground truth of generated corpora: it travels in the manifest's `extra`, into the JSON."""

import json
from collections.abc import Mapping
from typing import Any


def row_truth(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(truth, extra) of a manifest row; truth has no boxes where nothing is known."""
    extra = json.loads(row["extra"] or "{}")
    return extra.pop("truth", {"boxes": []}), extra
