"""How far a head keeps to a pattern: the share of attention that goes where the pattern says.

The measures are those of Clark et al., "What Does BERT Look At?" (2019), sections 3 and 4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from experiments.attention.capture import Attention, Reader


def neighbour(attention: Attention, offset: int) -> Tensor:
    """Return the mean attention [layers, heads] from a token of the text to the one `offset` behind it.

    Special tokens neither look nor are looked at; NaN where no two tokens of the text are neighbours.
    """
    own = ~attention.special
    return torch.diagonal(attention.weights, offset, dim1=2, dim2=3)[..., own[1:] & own[:-1]].mean(-1)


def separator(attention: Attention) -> Tensor:
    """Return the mean attention [layers, heads] from a token of the text to the separators together."""
    from_text = attention.weights[:, :, ~attention.special]
    return from_text[..., attention.separators].sum(-1).mean(-1)


def coreference(attention: Attention, mention: Mention) -> Tensor:
    """Return the attention [layers, heads] from the pronoun to the noun that it means.

    A word's pieces are looked at together, and look on average.
    """
    pronoun, noun = (attention.pieces(*mention.span(word)) for word in (mention.pronoun, mention.antecedent))
    return attention.weights[:, :, pronoun][..., noun].sum(-1).mean(-1)


def resolved(attention: Attention, mention: Mention) -> Tensor:
    """Return 1 [layers, heads] where the pronoun attends more to the noun that it means, 0 elsewhere."""
    wrong = coreference(attention, replace(mention, antecedent=mention.other))
    return (coreference(attention, mention) > wrong).float()


OF_TEXTS: dict[str, Callable[[Attention], Tensor]] = {
    "previous token": partial(neighbour, offset=-1),
    "next token": partial(neighbour, offset=1),
    "separator": separator,
}
OF_MENTIONS: dict[str, Callable[[Attention, Mention], Tensor]] = {
    "coreference": coreference,
    "pronoun resolved": resolved,
}


@dataclass(frozen=True)
class Scores:
    """How far each head of a network keeps to each pattern, from 0 to 1.

    `heads` [layers, heads] by pattern; `even`, what attention spread evenly over all tokens would score (a
    coin's half where the score is a share of right answers).
    """

    name: str
    heads: dict[str, Tensor]
    even: dict[str, float]


def measure(reader: Reader, texts: Sequence[str], mentions: Sequence[Mention]) -> Scores:
    """Return the scores of every head: means over the texts, and over the sentences with a pronoun."""
    found: dict[str, list[Tensor]] = {name: [] for name in (*OF_TEXTS, *OF_MENTIONS)}
    even: dict[str, list[Tensor]] = {name: [] for name in found}
    for attention in reader.read(texts):
        for name, pattern in OF_TEXTS.items():
            found[name].append(pattern(attention))
            even[name].append(pattern(_evenly(attention)))
    for mention, attention in zip(mentions, reader.read([each.text for each in mentions]), strict=True):
        for name, of_mention in OF_MENTIONS.items():
            found[name].append(of_mention(attention, mention))
        even["coreference"].append(coreference(_evenly(attention), mention))
    even["pronoun resolved"].append(torch.tensor(0.5))
    return Scores(
        reader.name,
        {name: torch.stack(each).nanmean(0) for name, each in found.items()},
        {name: float(torch.stack(each).nanmean()) for name, each in even.items()},
    )


def _evenly(attention: Attention) -> Attention:
    tokens = len(attention.tokens)
    return replace(attention, weights=torch.full((1, 1, tokens, tokens), 1 / tokens))


def by_luck(sentences: int, heads: int, certainty: float = 0.95) -> float:
    """Return the share of right answers that the best of so many heads stays under by luck alone.

    Each head tossing a coin for each sentence, all independently: a binomial quantile (Šidák's correction).
    """
    from scipy.stats import binom

    return float(binom.ppf(certainty ** (1 / heads), sentences, 0.5) / sentences)


@dataclass(frozen=True)
class Mention:
    """A sentence, its pronoun, the noun that it means and the noun that it does not mean."""

    text: str
    pronoun: str
    antecedent: str
    other: str

    def span(self, word: str) -> tuple[int, int]:
        """Return the characters, from and to, of a word that stands in the sentence once."""
        (found,) = re.finditer(rf"\b{re.escape(word)}\b", self.text)
        return found.span()


# the sentence, and for each of two nouns the pronoun that means it
_PAIRS = (
    ("The king waved to the queen before {} left the hall.", ("king", "he"), ("queen", "she")),
    ("The actress praised the actor because {} had worked hard.", ("actress", "she"), ("actor", "he")),
    ("My uncle phoned my aunt while {} was cooking.", ("uncle", "he"), ("aunt", "she")),
    ("The girl followed the dogs until {} reached the river.", ("girl", "she"), ("dogs", "they")),
    ("The boys lost the map before {} could be used.", ("boys", "they"), ("map", "it")),
    ("The waiter forgot the soup, and {} got cold.", ("waiter", "he"), ("soup", "it")),
    ("The mother carried the bags because {} wanted to help.", ("mother", "she"), ("bags", "they")),
    ("The farmers sold the horse when {} was old.", ("farmers", "they"), ("horse", "it")),
    ("The prince wrote to the princess after {} had moved away.", ("prince", "he"), ("princess", "she")),
    ("The father kept the letters until {} turned yellow.", ("father", "he"), ("letters", "they")),
    ("The nuns repaired the roof before {} collapsed.", ("nuns", "they"), ("roof", "it")),
    ("The bride laughed at the groom when {} dropped the ring.", ("bride", "she"), ("groom", "he")),
    ("The sisters called the man because {} needed money.", ("sisters", "they"), ("man", "he")),
    ("The woman closed the window because {} was cold.", ("woman", "she"), ("window", "it")),
    ("The brothers visited the lady after {} had written.", ("brothers", "they"), ("lady", "she")),
    ("The son argued with the daughter because {} was tired.", ("son", "he"), ("daughter", "she")),
    ("The tourists missed the train although {} was late.", ("tourists", "they"), ("train", "it")),
    ("The wife thanked the husband when {} came home.", ("wife", "she"), ("husband", "he")),
    ("The critics met the director before {} saw the film.", ("critics", "they"), ("director", "he")),
    ("The boy hid the coins where {} could not be seen.", ("boy", "he"), ("coins", "they")),
    ("The duchess sold the castle after {} had burned.", ("duchess", "she"), ("castle", "it")),
    ("The children watched the nurse while {} ate.", ("children", "they"), ("nurse", "she")),
    ("The monk opened the gates, and {} made no noise.", ("monk", "he"), ("gates", "they")),
    ("The grandmother met the grandfather when {} was young.", ("grandmother", "she"), ("grandfather", "he")),
)


def mentions() -> list[Mention]:
    """Return all sentences, the two of a pair side by side."""
    return [
        Mention(text.format(pronoun), pronoun, noun, other)
        for text, first, second in _PAIRS
        for (noun, pronoun), (other, _) in ((first, second), (second, first))
    ]
