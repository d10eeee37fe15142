"""Kinetics-400 (fine-tuning, linear layer; GLCM Table 10) and linear probes on Kinetics-600.

Kinetics-600 is probed with frozen sound, pictures and both (Jenni et al., Table 6). The validation
set is scored, as in every paper: the labels of the test set were never published as such.
"""

from train.evaluation.classify import accuracy, classify
from train.evaluation.fused import accuracy_of_parts, fused
from train.evaluation.task import Round, Settings, Task

KINETICS400 = Task(
    name="kinetics400",
    about="400 actions, fine-tuned or linear, top-1 on the validation set",
    dataset="kinetics400",
    profile="glcm",
    obtain="download Kinetics-400 with its CSV files (about 450 GB)",
    rounds=(Round("val", ("kinetics400:val",), ("kinetics400:train",)),),
    settings=Settings(protocol="linear", modality="V", frames=32, clips=10, crops=3, epochs=10),
    predict=classify,
    measure=accuracy,
    protocols=("linear", "finetune", "knn"),
)

KINETICS600 = Task(
    name="kinetics600",
    about="600 actions, linear probes on sound, pictures, both, top-1 on the validation set",
    dataset="kinetics600",
    profile="glcm",
    obtain="download Kinetics-600 with its annotation files",
    rounds=(Round("val", ("kinetics600:val",), ("kinetics600:train",)),),
    settings=Settings(protocol="linear", modality="V+A", frames=32, clips=10, crops=3),
    predict=fused,
    measure=accuracy_of_parts,
    protocols=("linear",),
)
