"""The captions experiment: a network that looks at a picture and writes a sentence about it.

from experiments.captions.config import CaptionsConfig
from experiments.captions.train import caption, train

config = CaptionsConfig(epochs=4)
result = train(config)
caption(result.run, ["picture.jpg"])
"""
