"""Quick dropout is dropout: as much is left out and comes through, and a resumed training draws the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainlab.training.dropout import QuickDropout, quick_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_is_left_out_and_the_mean_stays(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    found = QuickDropout(p)(torch.ones(1000, 333, dtype=dtype))
    assert found.dtype == dtype
    assert (found == 0).double().mean().item() == pytest.approx(p, abs=0.003)
    kept = found[found != 0].double()
    assert torch.allclose(
        kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-2 if dtype == torch.bfloat16 else 1e-3
    )
    assert found.double().mean().item() == pytest.approx(1, abs=0.03)


def test_neighbours_are_drawn_independently() -> None:
    torch.manual_seed(0)
    left_out = (QuickDropout(0.5)(torch.ones(1000, 1000)) == 0).double() - 0.5
    for shift in (1, 4, 1000):  # 4 numbers come from one draw of 64 bits
        flat = left_out.flatten()
        assert abs((flat[:-shift] * flat[shift:]).mean().item()) < 0.002


def test_each_call_draws_anew_and_the_state_of_torch_s_generator_decides() -> None:
    dropout, ones = QuickDropout(0.1), torch.ones(50, 50)
    state = torch.get_rng_state()
    first, second = dropout(ones), dropout(ones)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(ones), first) and torch.equal(dropout(ones), second)


def test_the_gradient_goes_where_the_numbers_went() -> None:
    inputs = torch.ones(100, 7, requires_grad=True)
    found = QuickDropout(0.3)(inputs)
    found.sum().backward()
    assert inputs.grad is not None
    assert torch.equal(inputs.grad, found.detach())


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.1, False)])
def test_nothing_is_left_out_while_nothing_is_to_be(p: float, training: bool) -> None:
    inputs = torch.randn(9, 5)
    assert torch.equal(QuickDropout(p).train(training)(inputs), inputs)


def test_all_is_left_out_by_a_share_of_one_and_no_numbers_by_none() -> None:
    assert not QuickDropout(1.0)(torch.ones(9, 5)).any()
    assert QuickDropout(0.1)(torch.ones(0, 5)).shape == (0, 5)


def test_a_model_s_dropouts_are_exchanged_and_others_stay() -> None:
    class Other(nn.Dropout):
        pass

    block = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2).eval())
    model = nn.Sequential(block, nn.Dropout(0.1, inplace=True), Other(0.1), nn.Dropout2d(0.1))
    before = model.state_dict().keys()
    assert quick_dropout(model) is model
    assert type(block[1]) is QuickDropout
    assert block[1].p == 0.2 and not block[1].training
    assert [type(each) for each in model[1:]] == [nn.Dropout, Other, nn.Dropout2d]
    assert model.state_dict().keys() == before
