"""Planted patterns are found."""

from __future__ import annotations

import pytest
import torch

from experiments.attention import scores as patterns
from experiments.attention import views
from experiments.attention.capture import Attention, Reader
from experiments.attention.scores import Mention, Scores, mentions
from experiments.attention.views import best

MENTION = Mention("king queen he", "he", "king", "queen")
SPANS = [(0, 0), (0, 4), (5, 10), (11, 13), (0, 0)]  # [CLS] king queen he [SEP]


def planted(*weights: torch.Tensor) -> Attention:
    """Return the attention of one layer whose heads have these weights [5, 5]."""
    unused = torch.zeros(1, len(weights), 5, 2)
    special = torch.tensor([True, False, False, False, True])
    tokens = ["[CLS]", "king", "queen", "he", "[SEP]"]
    return Attention(tokens, special, SPANS, torch.stack(weights)[None], unused, unused)


def looking(*places: int) -> torch.Tensor:
    """Return the weights [5, 5] of a head in which each token looks at one place."""
    return torch.nn.functional.one_hot(torch.tensor(places), 5).float()


BACK, FORTH, END = looking(0, 0, 1, 2, 3), looking(1, 2, 3, 4, 4), looking(4, 4, 4, 4, 4)
MEANING, NEAREST = looking(0, 1, 2, 1, 4), looking(0, 0, 1, 2, 4)
EVEN = torch.full((5, 5), 0.2)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (patterns.OF_TEXTS["previous token"], [1, 0, 0, 0.2]),
        (patterns.OF_TEXTS["next token"], [0, 1, 0, 0.2]),
        (patterns.separator, [0, 1 / 3, 1, 0.2]),
    ],
)
def test_a_planted_head_scores_one_and_an_even_one_its_share(pattern, expected: list[float]) -> None:
    assert pattern(planted(BACK, FORTH, END, EVEN))[0].tolist() == pytest.approx(expected)


def test_a_head_that_knows_what_a_pronoun_means_scores_one() -> None:
    attention = planted(MEANING, NEAREST, EVEN)
    assert patterns.coreference(attention, MENTION)[0].tolist() == pytest.approx([1, 0, 0.2])
    assert patterns.resolved(attention, MENTION)[0].tolist() == [1, 0, 0]


def test_the_sentences_come_in_pairs_that_no_place_can_tell_apart() -> None:
    found = mentions()
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert (one.antecedent, one.other) == (other.other, other.antecedent)
        assert one.text.replace(one.pronoun, other.pronoun) != one.text
        for mention in (one, other):
            starts = [mention.span(word)[0] for word in (one.antecedent, one.other, mention.pronoun)]
            assert starts == sorted(starts)


def test_every_head_is_scored_over_all_texts(reader: Reader) -> None:
    texts = ["the king", "the queen waved ."]
    scores = patterns.measure(reader, texts, mentions())
    assert set(scores.heads) == set(scores.even) == {*patterns.OF_TEXTS, *patterns.OF_MENTIONS}
    first, second = (patterns.separator(each) for each in reader.read(texts))
    assert torch.allclose(scores.heads["separator"], (first + second) / 2)
    assert scores.even["separator"] == pytest.approx((1 / 4 + 1 / 6) / 2)
    assert scores.even["pronoun resolved"] == 0.5


def test_a_text_of_one_word_has_no_neighbours_and_spoils_no_mean(reader: Reader) -> None:
    both = patterns.measure(reader, ["king", "the queen waved"], mentions()[:2])
    alone = patterns.measure(reader, ["the queen waved"], mentions()[:2])
    assert torch.allclose(both.heads["previous token"], alone.heads["previous token"])


def test_the_best_head_is_named_by_layer_and_head() -> None:
    heads = torch.zeros(3, 4)
    heads[2, 1] = 0.5
    assert best(Scores("planted", {"separator": heads}, {})) == {"separator": (2, 1)}


def test_luck_goes_further_with_more_heads_and_less_far_with_more_sentences() -> None:
    assert patterns.by_luck(1, 1) == 1
    assert 0.5 < patterns.by_luck(480, 72) < patterns.by_luck(48, 72) < patterns.by_luck(48, 720) < 1


def test_two_networks_are_drawn_with_their_difference() -> None:
    before, after = (Scores(name, {"separator": torch.rand(2, 3)}, {}) for name in ("before", "after"))
    figure = views.heat_maps([before, after])
    drawn = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    difference = after.heads["separator"] - before.heads["separator"]
    assert torch.allclose(torch.tensor(drawn[2].data), difference)
    assert len([axes for axes in views.heat_maps([before]).axes if axes.images]) == 1
