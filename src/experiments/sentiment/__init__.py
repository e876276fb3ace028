"""The sentiment experiment: a transformer fine-tuned to tell whether a review praises or pans a film.

from experiments.sentiment.config import SentimentConfig
from experiments.sentiment.model import predict
from experiments.sentiment.train import train

config = SentimentConfig(epochs=3)
result = train(config)
predict(result.run, ["A warm, funny film."])
"""
