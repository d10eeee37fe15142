"""The networks: each file is one encoder or one way to pool, without any loss.

`video.py` and `audio.py` turn a clip into feature maps, `attention.py` pools them over the
spatial grid. The methods of `train/methods/` put them together.
"""
