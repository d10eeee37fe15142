"""The studies: rows of a table of the GLCM paper, what each trains and looks at, on which clips.

    STUDIES["table6"].rows -> Row("a: L_g, z_g", model={"objective": "g"}, look={"features": "g"})

Only data; `train.studies.study` carries it out. Rows that train the same thing share one run,
within a study and between studies. Adding a study, a row or a corpus is one entry here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from train.errors import UsageError
from train.evaluation.config import EvalConfig

SCRATCH = "random weights (glcm)"
"""The row without pretraining: what the labels alone teach a probe."""
ONE_ENCODER = "random weights (one encoder)"
"""The same of the video encoder that the other methods of Table 5 share."""
CROP = "crop"
"""In a row's look: the pictures that a corpus calls its `crop`."""
SHORT, LONG = "the studies' steps", "four times the steps"
"""Rows of the study of longer training."""
ONE_RATE = "Ours, encoder at the head's rate"
"""Fine-tuned as from scratch."""
OTHERS = ("MoCo", "CPC", "DPC", "VDIM", "AVTS", "AVSlowFast")
"""What Table 5 compares GLCM with."""
LOW_RATE = 3e-4
"""Of the study of learning rates; the methods' own is 1e-3."""
MULTI, SINGLE = "No pooling & multiple pos. pairs", "Avg pooling & single pos. pair"
ONLY_G, ONLY_L = ", z_g", ", z_l"
"""After a row's name: the same weights, of which one kind of features is looked at. Not the paper's
where it stands here: a linear layer reads either kind better alone, most where labels are few."""


@dataclass(frozen=True)
class Row:
    """A row of the table: what is trained, and what of it is looked at."""

    label: str
    """As the paper names it."""
    method: str = "glcm"
    model: Mapping[str, Any] = field(default_factory=dict)
    """Switches of the method's config that are other than its preset's."""
    look: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the evaluations that are the row's own."""
    paper: Any = None
    """First cell of the paper's row; None where the paper has no such row."""
    trained: bool = True
    """Random weights where it is False."""
    corpora: tuple[str, ...] = ()
    """On which it can be looked at; empty: on all."""
    longer: int = 1
    """Times the study's steps for which it is trained."""
    rate: float | None = None
    """Peak learning rate, other than the method's own."""
    tasks: tuple[str, ...] = ()
    """Of the study's columns those that it is scored on; empty: all."""

    @property
    def run(self) -> str:
        """Name of what is trained: rows with the same one share it."""
        if not self.trained:
            return f"random-{self.method}"
        switches = [f"{name}_{value}" for name, value in self.model.items()]
        if self.longer > 1:
            switches.append(f"x{self.longer}")
        if self.rate is not None:
            switches.append(f"lr{self.rate:g}")
        return "-".join([self.method, *switches])


@dataclass(frozen=True)
class Corpus:
    """Clips to train on without labels, and tasks to score."""

    shards: str
    """Trained on."""
    task_shards: str
    """Scored."""
    tasks: tuple[str, ...]
    """Evaluations, a column each."""
    small: str
    """Preset of every method that fits two CPU cores and these clips' length."""
    full: str
    """Of the paper's size; see `train.studies.config.preset_of`."""
    make: str
    """The commands that make the shards."""
    crop: str
    """`--pictures` that show the source alone: `lip` of a detector, or the `box` that is known."""


CORPORA = {
    "planted": Corpus(
        "data/shards/planted-glcm", "data/shards/planted-glcm",
        ("planted_class", "planted_words", "planted_words@20", "planted_sentences",
         "planted_mismatch", "av_retrieval"),
        "tiny", "full", "make shards DATASET=planted", "box",
    ),
    "grid": Corpus(
        "data/shards/grid-glcm", "data/shards/grid-lips",
        ("grid_digits", "grid_digits@20", "grid_letters"),
        "tiny_grid", "grid",
        "make shards DATASET=grid ROOT=... PROFILE=glcm, and once more with PROFILE=lips", "lip",
    ),
}  # fmt: skip

LIKE = {
    "planted_class": "UCF101",
    "planted_words": "LRW",
    "planted_sentences": "LRS2",
    "planted_mismatch": "DFDC",
    "planted_events": "AVE_full",
    "grid_digits": "LRW",
    "grid_letters": "LRW",
    "grid_commands": "LRW",
    "grid_sentences": "LRS2",
}
"""Whose column of the paper has a task of the same kind, with whose order ours is compared."""

LOOKS: Mapping[str, Mapping[str, Any]] = {
    "planted_words": {"pictures": CROP, "cells": (4, 4, 4)},
    "planted_sentences": {"pictures": CROP, "cells": (1, 4, 4)},
    "planted_mismatch": {"cells": (1, 4, 4)},
    "planted_events": {"pooling": "full_avg", "cells": (1, 1, 1)},
    "grid_digits": {"cells": (4, 4, 4)},
    "grid_letters": {"cells": (4, 4, 4)},
    "grid_sentences": {"cells": (1, 4, 4)},
    "localization": {"cells": (1, 1, 1), "split": "test"},
    "av_retrieval": {"cells": (1, 1, 1), "pictures": "frames", "split": "test"},
}
"""Settings of tasks that go before a study's. Words and sentences are seen as the paper sees LRW
and LRS2, cut to what speaks (GRID's tasks are by themselves), and keep when and where apart;
sentences keep every frame apart by themselves. Mismatch is seen in whole frames: in crops random
weights tell 94 % of it, which leaves nothing to compare. What needs no labels is scored on the
test clips, too: those to choose by have had their part in choosing."""
WHOLE = ("localization", "av_retrieval")
"""Tasks that ask the network itself, whatever features a row looks at."""


BESIDE: Mapping[str, tuple[str, ...]] = {
    "localization": ("foreign_sound", "other_class", "centre", "chance"),
}
"""Task -> endings of its first metric's controls, which become the columns TASK:ENDING."""
ALSO: Mapping[str, tuple[str, ...]] = {
    "localization": ("iou", "iou:centre", "mass_ratio"),
    "av_retrieval": ("a2v_r10:global", "class_auc:global"),
}
"""Task -> its other metrics that are columns, too, TASK:METRIC."""
CONTROL = ":"
"""In the name of such columns."""
FEW = "@"
"""Before the number of labels of each class that a column's task learns from: planted_words@20."""


def task_of(column: str) -> tuple[str, int | None]:
    """The task of a column, and its labels of each class; None where it takes all.

    Raises:
        UsageError: what stands after the @ is no such number.
    """
    task, few, labels = column.partition(FEW)
    if few and not (labels.isdigit() and int(labels)):
        raise UsageError(f"{column!r}: expected TASK{FEW}LABELS, as planted_words{FEW}20, with one "
                         "label of each class or more")  # fmt: skip
    return task, int(labels) if few else None


@dataclass(frozen=True)
class Study:
    """A comparison."""

    about: str
    rows: tuple[Row, ...]
    table: str = ""
    """Of the GLCM paper; empty where it has none."""
    tasks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Corpus -> other tasks than its own; an empty tuple leaves the corpus out."""

    def tasks_on(self, corpus: str) -> tuple[str, ...]:
        """The columns that a corpus gives."""
        return self.tasks.get(corpus, CORPORA[corpus].tasks)

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """Random weights first, looked at as by most rows, where no row has them."""
        if not all(row.trained for row in self.rows):
            return self.rows
        usual = next((row.look for row in self.rows if not row.look), self.rows[-1].look)
        return (Row(SCRATCH, look=usual, trained=False), *self.rows)


def _glcm(label: str, paper: Any, look: Mapping[str, Any] | None = None, **model: Any) -> Row:
    return Row(label, "glcm", model, look or {}, paper)


_G, _L = {"features": "g"}, {"features": "l"}
READ = ("planted_words", "planted_words@20", "grid_digits", "grid_digits@20", "grid_letters")
"""What rows of local features alone, which are not the paper's, are scored on: single words, for it
is with few labels that a linear layer reads one kind better than both."""
_SOUNDING = {"pooling": "full_attention"}
_TIME = (4, 1, 1)
"""Attention leaves no place to tell apart, so all rows of its table keep only when."""
_SEEN: Mapping[str, Mapping[str, Any]] = {
    "full frame": {"pictures": "frames", "pooling": "full_avg", "cells": _TIME},
    "attention": {"pictures": "frames", "pooling": "full_attention", "cells": _TIME},
    "crop": {"pictures": CROP, "cells": _TIME},
}
"""What the rows of Table 8 look at."""


def _also_local(*rows: Row) -> tuple[Row, ...]:
    """The rows, and after them each with its local features alone, on `READ`."""
    local = (
        replace(row, label=f"{row.label}{ONLY_L}", look={**row.look, **_L}, paper=None, tasks=READ)
        for row in rows
    )
    return (*rows, *local)


def at_low_rate(name: str) -> str:
    """A row of the study of learning rates."""
    return f"{name}, rate {LOW_RATE:g}"


def longer(name: str) -> str:
    """A row of Table 8 in the study of longer training."""
    return f"{name}, {LONG}"


def _with_labels(name: str, look: Mapping[str, Any], corpora: tuple[str, ...] = ()) -> list[Row]:
    """Pretrained and random weights, with more and more labels of each class."""
    counts = {"1 label a class": 1, "5": 5, "20": 20, "all": None}
    return [
        Row(f"{name}, {said}{'' if trained else ', random weights'}",
            look={**look, "labels": count}, trained=trained, corpora=corpora)
        for trained in (True, False) for said, count in counts.items()
    ]  # fmt: skip


STUDIES = {
    "table5": Study(
        "contrastive objectives on the same encoder and clips (GLCM paper, Table 5)",
        (
            Row(SCRATCH, trained=False),
            Row(ONE_ENCODER, "moco", trained=False),
            *(Row(name, name.lower(), paper=name) for name in OTHERS),
            Row("Ours", "glcm", paper="Ours"),
        ),
        table="5",
        # As in the paper no global task. Mismatch wants a feature of sound, which MoCo, CPC, DPC,
        # and VDIM do not learn; of sentences GLCM itself gets nearly all wrong after the steps of
        # `small`, which leaves no room below it (--tasks planted_sentences scores them).
        tasks={"planted": ("planted_words", "planted_words@20")},
    ),
    "table6": Study(
        "global and local encoders, objectives and features (GLCM paper, Table 6)",
        (
            Row(SCRATCH, trained=False),
            Row(f"{SCRATCH}{ONLY_G}", look=_G, trained=False),
            Row(f"{SCRATCH}{ONLY_L}", look=_L, trained=False),
            _glcm("a: both encoders, L_g, z_g", "a", _G, objective="g"),
            _glcm("b: both encoders, both, z_g", "b", _G),
            _glcm("c: both encoders, L_l, z_l", "c", _L, objective="l"),
            _glcm("d: E_l alone, both, z_l", "d", _L, encoders="l_only"),
            _glcm("e: both encoders, both, z_l", "e", _L),
            _glcm("f: both encoders, both, both", "f"),
        ),
        table="6",
    ),
    "table7": Study(
        "several positive pairs in L_l (GLCM paper, Table 7)",
        _also_local(
            _glcm(SINGLE, "avg_pool_single_pair", multi_pair="avg_single"),
            _glcm(MULTI, "multi_pair"),
        ),
        table="7",
    ),
    "table8": Study(
        "whole frames, the attention map, or crops (GLCM paper, Table 8)",
        (
            *(Row(f"{name}, random weights", look=look, trained=False)
              for name, look in _SEEN.items()),
            *_also_local(*(_glcm(name, f"Ours {name}", look) for name, look in _SEEN.items())),
        ),
        table="8",
        tasks={"planted": ("planted_words", "planted_words@20")},
    ),
    "table9": Study(
        "audio window M (GLCM paper, Table 9)",
        _also_local(
            _glcm("M = 1", 1, window_M=1),
            _glcm("M = 3", 3),
            _glcm("M = 5", 5, window_M=5),
            _glcm("M = 7", 7, window_M=7),
        ),
        table="9",
    ),
    "localization": Study(
        "does the attention map lie on what sounds (GLCM paper, section 3.3 and Fig. 2)",
        (_glcm("Ours", None), _glcm("Ours, L_g only", None, objective="g")),
        tasks={"planted": ("localization",), "grid": ()},
    ),
    "longer": Study(
        "what four times as many steps change, of both objectives",
        (
            _glcm(SHORT, None),
            Row(LONG, longer=4),
            # Table 8 once more: whether a sharper map comes closer to crops.
            *_also_local(*(Row(longer(name), look=look, longer=4, tasks=("planted_words",))
                           for name, look in _SEEN.items())),
        ),
        tasks={"planted": ("planted_words", "planted_class", "localization", "av_retrieval"),
               "grid": ()},
    ),
    "events": Study(
        "which class sounds in each second, or none (as AVE), fine-tuned, from pretraining and "
        "from random weights",
        (
            Row(SCRATCH, look=_SOUNDING, trained=False),
            _glcm("Ours", "Ours", _SOUNDING),
            # A pretrained encoder gets a tenth of the head's rate, one from scratch all of it.
            _glcm(ONE_RATE, None, {**_SOUNDING, "lr_encoder": EvalConfig.lr_head}),
        ),
        tasks={"planted": ("planted_events",), "grid": ()},
        table="4",
    ),
    "rates": Study(
        "the objectives of Table 5 at their own learning rate and at a third of it",
        (
            Row(SCRATCH, trained=False),
            Row(ONE_ENCODER, "moco", trained=False),
            *(Row(name if rate is None else at_low_rate(name),
                  "glcm" if name == "Ours" else name.lower(), rate=rate)
              for name in (*OTHERS, "Ours") for rate in (None, LOW_RATE)),
        ),
        tasks={"planted": ("planted_words",), "grid": ("grid_digits", "grid_letters")},
    ),
    "labels": Study(
        "lip reading with few labels, from crops (and their local features alone), faces, and "
        "frames with attention",
        (
            *_with_labels("crop", {"pictures": CROP}),
            *_with_labels("crop z_l", {"pictures": CROP, **_L}),
            *_with_labels("face", {"pictures": "face"}, ("grid",)),
            *_with_labels("attention", {"pictures": "frames", "pooling": "full_attention",
                                        "cells": _TIME}),
        ),
        tasks={"planted": ("planted_words",), "grid": ("grid_digits", "grid_letters")},
    ),
}  # fmt: skip
"""Tables 5 to 9, the attention map, longer training, events, learning rates, and few labels; the
preset's own M is 3, its pairs summed."""
