"""LRW: which of 500 words is said in the middle of 29 frames (Chung and Zisserman 2016).

GLCM §4.1: features of both paths averaged over place and time, two layers, cross-entropy, all of it
trained; the crop with the lips in its middle, mirrored at random. One window is scored, the clip.
The full-frame and the attention rows of Table 8 are `--pictures frames`, with `--pooling
full_attention` for the second.
"""

from train.evaluation.classify import accuracy, classify
from train.evaluation.task import Round, Settings, Task

LRW = Task(
    name="lrw",
    about="500 words, lip crops of 29 frames, top-1",
    dataset="lrw",
    profile="lips",
    obtain="sign the agreement of Lip Reading in the Wild (BBC and Oxford), download its parts and "
    "unpack them: they hold lipreading_mp4",
    rounds=(Round("test", ("lrw:test",), ("lrw:train",), ("lrw:val",)),),
    settings=Settings(pictures="lip", frames=29, clips=1, epochs=20, batch_size=32),
    predict=classify,
    measure=accuracy,
)
