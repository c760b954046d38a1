"""The optimizer's steps, beside AdamW's where both have to be the same, and beside those of a turned adapter."""

from __future__ import annotations

import torch

from nomoat.tune import soap
from nomoat.tune.soap import Soap


def steps_of(optimizer: Soap | torch.optim.AdamW, matrices: list[torch.nn.Parameter], gradients: list[list[torch.Tensor]]) -> None:
    for each in gradients:
        for matrix, gradient in zip(matrices, each, strict=True):
            matrix.grad = gradient.clone()
        optimizer.step()


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_where_gradients_lie_along_the_rows_the_steps_are_adam_s() -> None:
    """Rows that are orthogonal, of different sizes: the basis is the rows themselves, up to order and sign."""
    rows = torch.linalg.qr(drawn(9, 4))[0].t() * torch.tensor([4.0, 3.0, 2.0, 1.0])[:, None]
    gradients = [[rows * size, (rows * size).t().contiguous()] for size in (1.0, -0.5, 2.0, 1.0, -1.5)]
    ours, theirs = ([torch.nn.Parameter(torch.ones(4, 9)), torch.nn.Parameter(torch.ones(9, 4))] for _ in range(2))
    steps_of(Soap(ours, 1e-2), ours, gradients)
    betas = (soap.MEAN_PART, soap.SQUARE_PART)
    steps_of(torch.optim.AdamW(theirs, lr=soap.RATE_SCALE * 1e-2, betas=betas, weight_decay=0.0), theirs, gradients)
    assert all(torch.allclose(our, their, atol=2e-5) for our, their in zip(ours, theirs, strict=True))
    assert not torch.allclose(ours[0], torch.ones(4, 9), atol=1e-2)


def test_an_adapter_turned_in_its_rank_takes_the_same_steps_turned() -> None:
    """B A = (B Q^T) (Q A): what the adapter is does not depend on Q, nor do the steps; AdamW's do."""
    turn = torch.linalg.qr(drawn(4, 4, seed=1))[0]
    gradients = [[drawn(4, 30, seed=at), drawn(20, 4, seed=100 + at)] for at in range(30)]
    turned = [[turn @ a, b @ turn.t()] for a, b in gradients]
    found = []
    for make in (lambda matrices: Soap(matrices, 1e-2), lambda matrices: torch.optim.AdamW(matrices, lr=1e-2, weight_decay=0.0)):
        plain, other = ([torch.nn.Parameter(torch.zeros(4, 30)), torch.nn.Parameter(torch.zeros(20, 4))] for _ in range(2))
        steps_of(make(plain), plain, gradients)
        steps_of(make(other), other, turned)
        apart = [turn @ plain[0] - other[0], plain[1] @ turn.t() - other[1]]
        found.append(max(float(each.detach().abs().max()) for each in apart))
    assert found[0] < 1e-4 and found[1] > 1e-2


def test_it_goes_on_from_what_was_kept() -> None:
    gradients = [[drawn(4, 9, seed=at), drawn(9, 4, seed=50 + at), drawn(4, 4, seed=90 + at)] for at in range(16)]
    whole, begun, gone_on = ([torch.nn.Parameter(torch.ones(shape)) for shape in ((4, 9), (9, 4), (4, 4))] for _ in range(3))
    steps_of(Soap(whole, 1e-2), whole, gradients)
    optimizer = Soap(begun, 1e-2)
    steps_of(optimizer, begun, gradients[:7])
    for matrix, other in zip(gone_on, begun, strict=True):
        matrix.data.copy_(other)
    again = Soap(gone_on, 1e-2)
    again.load_state_dict(optimizer.state_dict())
    steps_of(again, gone_on, gradients[7:])
    assert all(map(torch.equal, whole, gone_on)) and all(matrix.grad is None for matrix in gone_on)


def test_a_matrix_without_slope_stays_as_it_is_and_learns_later() -> None:
    """As A does while B is zero."""
    matrix = torch.nn.Parameter(torch.ones(4, 9))
    optimizer = Soap([matrix], 1e-2)
    steps_of(optimizer, [matrix], [[torch.zeros(4, 9)]] * 3)
    assert torch.equal(matrix, torch.ones(4, 9))
    steps_of(optimizer, [matrix], [[drawn(4, 9) * 1e-6]] * 3)
    assert matrix.isfinite().all() and 1e-3 < float((matrix.detach() - 1).abs().max()) < 0.1


def test_a_gradient_that_is_no_number_makes_a_step_that_is_none() -> None:
    """Whoever learns looks at losses and gradients, in the process that has the whole of them: a worker only makes the step."""
    matrix = torch.nn.Parameter(torch.ones(4, 9))
    steps_of(Soap([matrix], 1e-2), [matrix], [[drawn(4, 9)], [torch.full((4, 9), torch.nan)]])
    assert matrix.isnan().all()
