"""Sentences whose pronoun means one of two nouns, in pairs that differ in the pronoun alone.

A head that looks at the nearer noun, or at the first one, is right in one sentence of each pair and wrong in
the other: only one that follows the meaning is right in both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


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
