from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from experiments.captions.data import END, PAD, START
from experiments.captions.model import State, write

A, B = 4, 5
# What follows what, and how likely. The likeliest first word, A, leads to unlikely ends only.
CHANCES = {START: {A: 0.6, B: 0.4}, A: {A: 0.3, B: 0.3, END: 0.4}, B: {END: 0.9, A: 0.1}}
STATE = (torch.zeros(1, 3, 1), torch.zeros(1, 3, 1))  # three pictures


def chain(words: Tensor, state: State) -> tuple[Tensor, State]:
    chances = torch.full((len(words), 6), 1e-9)
    for row, word in enumerate(words.tolist()):
        for following, chance in CHANCES.get(word, {}).items():
            chances[row, following] = chance
    return chances.log(), (state[0] + 1, state[1])


def test_greedy_takes_the_likeliest_word_each_time() -> None:
    written = write(chain, STATE, 1, 5)
    assert written.words.tolist() == [[A, END, PAD, PAD, PAD]] * 3
    assert written.scores.tolist() == pytest.approx([math.log(0.6 * 0.4)] * 3)


def test_a_beam_finds_what_greedy_misses() -> None:
    written = write(chain, STATE, 2, 5)
    assert written.words.tolist() == [[B, END, PAD, PAD, PAD]] * 3
    assert written.scores.tolist() == pytest.approx([math.log(0.4 * 0.9)] * 3)


def test_a_caption_without_end_is_cut_at_the_limit() -> None:
    def endless(words: Tensor, state: State) -> tuple[Tensor, State]:
        return torch.tensor([[9.0, 8.0, -9.0, 0.0, 5.0, 1.0]]).log_softmax(-1).expand(len(words), -1), state

    assert write(endless, STATE, 1, 3).words.tolist() == [[A, A, A]] * 3, "never padding, never start"


def test_a_beam_wider_than_there_are_words_is_no_mistake() -> None:
    assert write(chain, STATE, 50, 5).words[0].tolist() == [B, END, PAD, PAD, PAD]


def test_each_beginning_keeps_its_own_state() -> None:
    """The state says which word came first; after two words, only the right one leads to the end."""

    def step(words: Tensor, state: State) -> tuple[Tensor, State]:
        first, count = state
        first = torch.where(count == 1, words[None, :, None].float(), first)
        chances = torch.full((len(words), 6), 1e-9)
        chances[:, [A, B]] = torch.tensor([0.55, 0.45])
        late = (count == 2).flatten()
        chances[late & (first.flatten() == B)] = torch.tensor([0, 0, 0.99, 0, 0, 0]) + 1e-9
        return chances.log(), (first, count + 1)

    written = write(step, STATE, 4, 3)
    assert written.words.tolist() == [[B, A, END]] * 3
