"""VGG-Sound: 309 sounds, linear probes on frozen sound, pictures and both (Jenni et al., Table 6).

Beside top-1 the data set's own measures, macro means over classes: mAP, AUC and d'.
"""

from train.evaluation.fused import accuracy_of_parts, fused
from train.evaluation.result import Predictions
from train.evaluation.task import Round, Settings, Task
from train.metrics import Score, d_prime, mean_auc, mean_average_precision


def measure(predictions: Predictions) -> list[Score]:
    """top-1 of both and of each modality, then mAP, AUC and d' of both."""
    scores, labels = predictions.scores, predictions.labels
    assert scores is not None
    auc = mean_auc(scores, labels, predictions.groups)
    return [
        *accuracy_of_parts(predictions),
        mean_average_precision(scores, labels, predictions.groups),
        auc,
        d_prime(auc),
    ]


VGGSOUND = Task(
    name="vggsound",
    about="309 sounds, linear probes on sound, pictures, both, top-1",
    dataset="vggsound",
    profile="glcm",
    obtain="fetch VGG-Sound's clips by its vggsound.csv",
    rounds=(Round("test", ("vggsound:test",), ("vggsound:train",)),),
    settings=Settings(protocol="linear", modality="V+A", frames=32, clips=10),
    predict=fused,
    measure=measure,
    protocols=("linear",),
)
