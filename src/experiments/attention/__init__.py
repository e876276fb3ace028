"""What the heads of a network attend to: BertViz's views without a network, and scores of every head.

from experiments.attention.config import AttentionConfig
from experiments.attention.views import look

study = look(AttentionConfig(run="last"))
study.head_view()
"""
