"""Cox's partial likelihood: a literal loop, a published example, and edge cases."""

from __future__ import annotations

import math

import pytest
import torch

from patchknn.losses.cox import cox_partial_likelihood


def _literal(risks, times, events):
    """Efron's product, event by event, in float64."""
    total, n_events = 0.0, 0
    for time in sorted({t for t, e in zip(times, events, strict=True) if e}):
        tied = [r for r, t, e in zip(risks, times, events, strict=True) if e and t == time]
        at_risk = sum(math.exp(r) for r, t in zip(risks, times, strict=True) if t >= time)
        own = sum(math.exp(r) for r in tied)
        for number, risk in enumerate(tied):
            total += math.log(at_risk - number / len(tied) * own) - risk
            n_events += 1
    return total / n_events


@pytest.mark.parametrize("levels", [3, 1000])
def test_it_is_the_literal_product(levels):
    generator = torch.Generator().manual_seed(levels)
    risks = torch.randn(40, generator=generator, dtype=torch.float64)
    times = torch.randint(levels, (40,), generator=generator).double()
    events = torch.rand(40, generator=generator) < 0.6
    expected = _literal(risks.tolist(), times.tolist(), events.tolist())
    assert cox_partial_likelihood(risks, times, events).item() == pytest.approx(expected, rel=1e-10)
    narrow = cox_partial_likelihood(risks.float(), times, events).item()
    assert narrow == pytest.approx(expected, rel=1e-5)


def test_it_is_least_where_therneau_and_grambsch_say():
    # Modeling Survival Data (2000), appendix E.1: six subjects, β = 1.676857 with Efron's ties.
    covariate = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    times = torch.tensor([1.0, 1, 6, 6, 8, 9])
    events = torch.tensor([1, 0, 1, 1, 0, 1]).bool()
    beta = torch.tensor(1.676857, dtype=torch.float64, requires_grad=True)
    loss = cox_partial_likelihood(beta * covariate, times, events)
    loss.backward()
    assert abs(beta.grad.item()) < 1e-6
    r = math.exp(1.676857)
    expected = 2 * 1.676857 - math.log(3 * r + 3) - math.log(r + 3) - math.log(r / 2 + 2.5)
    assert -4 * loss.item() == pytest.approx(expected)


def test_its_least_is_the_fit_of_scikit_survival():
    """A proportional hazards model of three covariates, many tied times, Efron's way with them."""
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.util import Surv

    generator = torch.Generator().manual_seed(5)
    covariates = torch.randn(120, 3, generator=generator, dtype=torch.float64)
    hazard = torch.exp(covariates @ torch.tensor([1.0, -0.5, 0.0], dtype=torch.float64))
    times = -torch.rand(120, generator=generator, dtype=torch.float64).log() / hazard
    times = (4 * times).ceil().clamp(max=12)
    events = (torch.rand(120, generator=generator) < 0.7) & (times < 12)
    assert len(times.unique()) < 15
    oracle = CoxPHSurvivalAnalysis(ties="efron", tol=1e-12)
    oracle.fit(covariates.numpy(), Surv.from_arrays(events.numpy(), times.numpy()))
    beta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([beta], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = cox_partial_likelihood(covariates @ beta, times, events)
        value.backward()
        return value

    for _ in range(3):
        optimizer.step(loss)
    assert beta.detach().numpy() == pytest.approx(oracle.coef_, abs=1e-5)


def test_gradients():
    risks = torch.randn(12, dtype=torch.float64, requires_grad=True)
    times = torch.tensor([1.0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 6, 7])
    events = torch.tensor([1, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 0]).bool()
    assert torch.autograd.gradcheck(lambda r: cox_partial_likelihood(r, times, events), (risks,))


def test_large_risks_stay_numbers():
    risks = torch.tensor([1e3, -1e3, 500.0, 0.0], requires_grad=True)
    times, events = torch.tensor([3.0, 2, 2, 1]), torch.tensor([True, True, True, True])
    loss = cox_partial_likelihood(risks, times, events)
    loss.backward()
    assert loss.isfinite()
    assert risks.grad.isfinite().all()


def test_without_an_event_it_is_zero_with_a_graph():
    risks = torch.randn(5, requires_grad=True)
    loss = cox_partial_likelihood(risks, torch.arange(5.0), torch.zeros(5, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert (risks.grad == 0).all()


def test_half_precision_is_widened():
    risks = torch.randn(20)
    times, events = torch.rand(20), torch.rand(20) < 0.7
    half = cox_partial_likelihood(risks.half(), times, events)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, cox_partial_likelihood(risks.half().float(), times, events))
