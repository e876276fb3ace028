from __future__ import annotations

import pytest

from experiments.captions.data import END, PAD, SPECIAL, START, UNKNOWN, Vocabulary, words_of

CAPTIONS = ["A dog's bowl.", "a dog", "A  bowl, a dog!"]


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.of(CAPTIONS, 2)


def test_words_are_lower_case_without_punctuation() -> None:
    assert words_of("A dog's  bowl, on 2 café-tables.") == ["a", "dog's", "bowl", "on", "2", "café", "tables"]


def test_rare_words_are_left_out(vocabulary: Vocabulary) -> None:
    assert vocabulary.words == (*SPECIAL, "a", "bowl", "dog")
    assert len(vocabulary) == 7


def test_encoding_frames_cuts_and_knows_what_it_does_not_know(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode("A DOG", 20) == [START, 4, 6, END]
    assert vocabulary.encode("a cat and a dog", 2) == [START, 4, UNKNOWN, END]


def test_decoding_takes_encoding_back(vocabulary: Vocabulary) -> None:
    assert vocabulary.decode(vocabulary.encode("A bowl, a dog!", 20)) == "a bowl a dog"
    assert vocabulary.decode([4, END, 5, PAD]) == "a", "nothing behind the end"
