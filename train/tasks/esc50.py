"""ESC-50 and ESC-10: environmental sounds in 5 s (Piczak 2015), five official folds.

Fine-tuning and linear layer as GLCM (Tables 3 and 10): mean of the audio features over time, two
layers or one. `svm` is the protocol of AVTS and AVID: a linear SVM one against all, 10 windows of a
clip in training and in testing, their decision values averaged.
"""

from dataclasses import replace

from train.evaluation.classify import accuracy, classify
from train.evaluation.task import Settings, Task, folds

SETTINGS = Settings(
    modality="A",
    pictures="none",
    frames=32,
    clips=10,
    train_clips=10,
    epochs=60,
    batch_size=16,
    validation=0.0,  # a tenth of 320 clips chooses worse than the end of the schedule
)

ESC50 = Task(
    name="esc50",
    about="50 environmental sounds, five folds, mean top-1",
    dataset="esc50",
    profile="sound",
    obtain="download ESC-50 (its repository's ZIP, about 600 MB, CC BY-NC) and unpack it",
    rounds=folds("esc50", 5),
    settings=SETTINGS,
    predict=classify,
    measure=accuracy,
)

ESC10 = replace(
    ESC50,
    name="esc10",
    about="10 environmental sounds (CC BY part of ESC-50), five folds, mean top-1",
    dataset="esc10",
    obtain="download ESC-10 or ESC-50 and unpack it",
    rounds=folds("esc10", 5),
)
