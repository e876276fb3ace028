"""Captions by beams, in NumPy: a made-up language in which the likeliest first word leads astray."""

from __future__ import annotations

import numpy as np
import pytest

from trainlab.serving.pictures import PictureSettings, write

State = tuple[np.ndarray, np.ndarray]

PAD, START, END, GOOD, BAD, MORE = range(6)
SETTINGS = PictureSettings(side=2, crop=2, max_words=3, beam=1, padding=PAD, start=START, end=END)
FOLLOWS = {
    START: {GOOD: 0.4, BAD: 0.6},
    GOOD: {END: 1.0},
    BAD: {END: 0.5, MORE: 0.5},
    MORE: {END: 1.0},
    END: {END: 1.0},
    PAD: {END: 1.0},
}


def step(words: np.ndarray, state: State) -> tuple[np.ndarray, State]:
    chances = np.full((len(words), 6), 1e-9, np.float32)
    for row, word in enumerate(words):
        for following, chance in FOLLOWS[int(word)].items():
            chances[row, following] = chance
    return np.log(chances), state


def state(pictures: int) -> State:
    return np.zeros((pictures, 1), np.float32), np.zeros((pictures, 1), np.float32)


def test_greedy_takes_the_likeliest_word_and_beams_find_the_likeliest_caption() -> None:
    greedy, beams = (write(step, state(2), width, SETTINGS) for width in (1, 2))
    assert greedy.words.tolist() == [[BAD, END, PAD]] * 2
    assert np.exp(greedy.scores) == pytest.approx([0.3, 0.3])
    assert beams.words.tolist() == [[GOOD, END, PAD]] * 2
    assert np.exp(beams.scores) == pytest.approx([0.4, 0.4])


def test_more_beams_than_there_are_words_and_no_end_within_the_limit() -> None:
    short = SETTINGS.model_copy(update={"max_words": 1})
    found = write(step, state(1), 100, short)
    assert found.words.tolist() == [[BAD]]
