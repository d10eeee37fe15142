"""Action recognition on UCF101 and HMDB51: the mean of three official splits, top-1.

Fine-tuning or a linear layer on 32 frames (GLCM Tables 3 and 10); a clip's probabilities are the
mean of 10 windows from end to end, three squares each. The GLCM paper does not say how many; AVID
takes 10 windows, GDT 10 x 3.
"""

from dataclasses import replace

from train.evaluation.classify import accuracy, classify
from train.evaluation.task import Settings, Task, official_splits

SETTINGS = Settings(modality="V", frames=32, clips=10, crops=3, epochs=20)

UCF101 = Task(
    name="ucf101",
    about="101 actions, mean of three official splits, top-1",
    dataset="ucf101",
    profile="glcm",
    obtain="download UCF-101 (6.5 GB) and its action-recognition splits (ucfTrainTestlist)",
    rounds=official_splits("ucf101", 3),
    settings=SETTINGS,
    predict=classify,
    measure=accuracy,
)

HMDB51 = replace(
    UCF101,
    name="hmdb51",
    about="51 actions, mean of three official splits, top-1",
    dataset="hmdb51",
    obtain="download HMDB51 (hmdb51_org.rar, 2 GB) and its splits (test_train_splits.rar)",
    rounds=official_splits("hmdb51", 3),
)
