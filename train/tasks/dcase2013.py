"""DCASE2013 acoustic scenes: 10 places in 30 s; public clips teach, the private ones are scored.

The protocol of L3, AVTS and AVID: a linear SVM on frozen features, 60 windows of a clip in
training, 10 in testing, their decision values averaged.
"""

from train.evaluation.classify import accuracy, classify
from train.evaluation.task import Round, Settings, Task

DCASE2013 = Task(
    name="dcase2013",
    about="10 acoustic scenes, public set against private set, top-1",
    dataset="dcase2013",
    profile="sound",
    obtain="download the DCASE 2013 scenes, scenes_stereo and scenes_stereo_testset, and unpack "
    "both into one folder",
    rounds=(Round("test", ("dcase2013:test",), ("dcase2013:train",)),),
    settings=Settings(
        protocol="svm",
        modality="A",
        pictures="none",
        frames=32,
        clips=10,
        train_clips=60,
        epochs=60,
    ),
    predict=classify,
    measure=accuracy,
)
