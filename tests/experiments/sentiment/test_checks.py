"""The checks take the sentiment experiment as Lightning's module, and find nothing wrong with it."""

from __future__ import annotations

import pytest

from experiments.sentiment.checks import SentimentSubject
from experiments.sentiment.config import SentimentConfig
from trainlab.checks.harness import Finding
from trainlab.checks.run import run_all


class Quick(SentimentSubject):
    steps = 48
    overfit_steps = 40


@pytest.fixture(scope="module")
def findings(tiny: SentimentConfig) -> dict[int, Finding]:
    return {each.number: each for each in run_all(Quick(tiny))}


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14])
def test_the_network_passes(findings: dict[int, Finding], number: int) -> None:
    assert findings[number].status == "passed", findings[number].found


def test_words_counted_are_a_baseline(findings: dict[int, Finding]) -> None:
    assert "TF-IDF" in findings[6].found
    assert "majority" in findings[6].found
