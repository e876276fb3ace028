"""The news experiment: a siamese network under which related news lie close together.

from experiments.news.config import NewsConfig
from experiments.news.recommend import recommend
from experiments.news.train import train

config = NewsConfig(temperature=0.1)
result = train(config)
recommend(result.run, ["Ten easy pasta dinners"])
"""
