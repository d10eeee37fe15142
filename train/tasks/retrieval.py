"""Video retrieval on UCF101 and HMDB51, split 1: R@k and 1-NN (R@1) with frozen features.

Queries are the test clips, the gallery the training clips; a hit is any of the k nearest with the
query's class. Features: 10 windows x 3 squares averaged, standardised, cosine (Jenni et al. §4).
"""

from train.evaluation.retrieval import recall, retrieve
from train.evaluation.task import Settings, Task, official_splits

SETTINGS = Settings(protocol="frozen", modality="V", frames=32, clips=10, crops=1, train_clips=10)

RETRIEVAL = Task(
    name="retrieval",
    about="UCF101, split 1: R@k of test clips among training clips; R@1 is 1-NN",
    dataset="ucf101",
    profile="glcm",
    obtain="download UCF-101 (6.5 GB) and its action-recognition splits (ucfTrainTestlist)",
    rounds=official_splits("ucf101", 1),
    settings=SETTINGS,
    predict=retrieve,
    measure=recall,
    protocols=("frozen",),
)

RETRIEVAL_HMDB51 = Task(
    name="retrieval_hmdb51",
    about="HMDB51, split 1: R@k of test clips among training clips; R@1 is 1-NN",
    dataset="hmdb51",
    profile="glcm",
    obtain="download HMDB51 (hmdb51_org.rar, 2 GB) and its splits (test_train_splits.rar)",
    rounds=official_splits("hmdb51", 1),
    settings=SETTINGS,
    predict=retrieve,
    measure=recall,
    protocols=("frozen",),
)
