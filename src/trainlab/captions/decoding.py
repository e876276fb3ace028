"""From scores to captions: the likeliest word each time, or a beam of the likeliest beginnings."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from trainlab.captions.vocabulary import END, PAD, START

State = tuple[Tensor, Tensor]  # of an LSTM: hidden and cell, both [1, N, H]
Step = Callable[[Tensor, State], tuple[Tensor, State]]  # words [N] -> log probabilities [N, V], next state


class Written(NamedTuple):
    """Captions as numbers [N, L], from the first word to the end and then padding; log probabilities [N]."""

    words: Tensor
    scores: Tensor


def write(step: Step, state: State, width: int, limit: int) -> Written:
    """Write N captions of at most `limit` words by beams of `width`; 1 takes the likeliest word each time.

    `state` is what the pictures left in the network. A caption's score is the sum of its words' log
    probabilities, its end with them. Whether to end after `limit` words is not asked.
    """
    pictures, device = state[0].shape[1], state[0].device
    rows = torch.arange(pictures, device=device)
    words = torch.full((pictures, 1, limit), PAD, device=device)
    scores = torch.zeros(pictures, 1, device=device)
    last = torch.full((pictures, 1), START, device=device)
    done = torch.zeros_like(last, dtype=torch.bool)
    for place in range(limit):
        beams = last.shape[1]
        chances, state = step(last.flatten(), state)
        totals = _totals(scores, chances.view(pictures, beams, -1), done)
        scores, best = totals.flatten(1).topk(min(width, totals[0].numel()))
        parent, last = best // chances.shape[-1], best % chances.shape[-1]
        words, done = words[rows[:, None], parent], done.gather(1, parent)
        words[:, :, place] = last
        done = done | (last == END)
        state = _follow(state, (rows[:, None] * beams + parent).flatten())
        if done.all():
            break
    return Written(words[:, 0], scores[:, 0])


def _totals(scores: Tensor, chances: Tensor, done: Tensor) -> Tensor:
    """Return the scores [N, K, V] of each beginning with each next word.

    One that has ended is followed by padding, at no cost; any other never by padding or start.
    """
    ended = torch.full_like(chances, -torch.inf)
    ended[..., PAD] = 0
    going = chances.clone()
    going[..., [PAD, START]] = -torch.inf
    return scores[..., None] + torch.where(done[..., None], ended, going)


def _follow(state: State, rows: Tensor) -> State:
    """Return the states [1, N, H] of these beginnings."""
    return state[0][:, rows], state[1][:, rows]
