"""What a checkpoint is worth: the machinery that all tasks share. The tasks are in `train.tasks`.

    task        what a task is: data set, rounds (folds, splits), settings, how it is scored
    config      EvalConfig: the flags of `train eval`
    labelled    a shard set with its manifest -> examples of a split, and which are missing
    clips       an example -> windows of pictures and sound -> ClipBatch after ClipBatch
    encoders    a checkpoint, or random weights -> features; pooling them over place and time
    frozen      features of all clips, computed once for a checkpoint and a shard set
    probes      linear layer, linear SVM (svm), nearest neighbours on frozen features
    fused       probes of sound, pictures and both; retrieval: the nearest clips
    segments    a clip in equal parts, their sound attending to their frames (AVE)
    maps        attention maps against boxes; overlay: their picture (localization)
    timing      is a sound in time with pictures (avsync); matching: with those of other clips
    heads       what is trained on top of the encoders; finetune: the loop that trains both
    kept        ROUND/model.pt: a fine-tuned model, to be used on other clips
    classify    example -> class scores, by any of these protocols
    words       one word of each sentence as an example: a window about its middle
    transcribe  utterance -> text, by CTC
    result      result.json, predictions, pictures
    driver      one evaluation from flags to result.json; caveats: what keeps its number from being
                the benchmark's; rounds: each carried out, or found done; job: one of them

Importing this package loads nothing.
"""
