"""Video retrieval on UCF101 and HMDB51, split 1: R@k and 1-NN (R@1) with frozen features.

Queries are the test clips, the gallery the training clips; a hit is any of the k nearest with the
query's class. Features: 10 windows averaged, standardised, cosine (Jenni et al. §4); the middle
square of each, where the paper takes several.
"""

from train.evaluation.retrieval import recall, retrieve
from train.evaluation.task import Round, Settings, Task

SETTINGS = Settings(protocol="frozen", modality="V", frames=32, clips=10, crops=1, train_clips=10)

RETRIEVAL = Task(
    name="retrieval",
    about="UCF101 (HMDB51 with its SHARDS=), split 1: R@k of test clips among training clips",
    dataset="ucf101",
    profile="glcm",
    obtain="download UCF-101 (6.5 GB) and its action-recognition splits (ucfTrainTestlist)",
    rounds=(Round("split1", ("test1",), ("train1",)),),
    settings=SETTINGS,
    predict=retrieve,
    measure=recall,
    protocols=("frozen",),
)
