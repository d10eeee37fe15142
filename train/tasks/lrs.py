"""LRS2 and LRS3: whole sentences, corpus WER and CER by CTC without a language model.

GLCM §4.1: features averaged over place, not over time, two layers for each frame. The paper does
not say how it decodes; here the likeliest path, or `--beam 10`. LRS2 learns from pretrain and train
(its lists), LRS3 from pretrain and from trainval, of which a list of validation clips, where there
is one, makes train and val.
"""

from train.evaluation.labelled import LabelledSet
from train.evaluation.task import Round, Settings, Task
from train.evaluation.transcribe import error_rates, transcribe, utterances

SETTINGS = Settings(pictures="lip", frames=0, clips=1, epochs=20, batch_size=16)
DECODING = "WER and CER are over the whole corpus; CTC, no language model"


def _rounds_of_lrs3(labelled: LabelledSet) -> tuple[Round, ...]:
    """Learns from train and chooses by val where there is a list of it, else from trainval."""
    test = ("lrs3:test",)
    if "lrs3:val" in labelled.split_names():
        return (Round("test", test, ("lrs3:pretrain", "lrs3:train"), ("lrs3:val",)),)
    return (Round("test", test, ("lrs3:pretrain", "lrs3:trainval")),)


LRS2 = Task(
    name="lrs2",
    about="sentences of BBC television, CTC, WER and CER",
    dataset="lrs2",
    profile="lips",
    obtain="sign the agreement of Lip Reading Sentences 2 (BBC and Oxford), download its parts and "
    "the four lists and unpack them: they hold mvlrs_v1",
    rounds=(Round("test", ("lrs2:test",), ("lrs2:pretrain", "lrs2:train"), ("lrs2:val",)),),
    settings=SETTINGS,
    predict=transcribe,
    measure=error_rates,
    examples=utterances,
    protocols=("finetune", "linear"),
    notes=(DECODING,),
)

LRS3 = Task(
    name="lrs3",
    about="sentences of TED talks, CTC, WER and CER",
    dataset="lrs3",
    profile="lips",
    obtain="LRS3 is not given out any more; who has it needs the folders pretrain, trainval, test",
    rounds=_rounds_of_lrs3,
    settings=SETTINGS,
    predict=transcribe,
    measure=error_rates,
    examples=utterances,
    protocols=("finetune", "linear"),
    notes=(DECODING,),
)
