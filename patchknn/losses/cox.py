"""Cox's partial likelihood for censored times, ties by Efron (Cox 1972; Efron 1977).

As a loss for networks: Katzman 2018 (DeepSurv), eq. 4. The risk set of an event is what of the
batch is still under observation, so that batches should be large.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchknn.losses.precision import in_full_precision


@in_full_precision
def cox_partial_likelihood(risks: Tensor, times: Tensor, events: Tensor) -> Tensor:
    """Negative log partial likelihood per event: risks, times (B,), events (B,) bool → scalar.

    ``risks`` are log hazards; adding a number to all of them changes nothing. Of d events at one
    time the risk set of the l-th (l from 0) counts those d with a share of 1 − l/d (Efron).
    Without an event it is 0, still with a graph.
    """
    if not events.any():
        return risks.sum() * 0
    ours, when = risks[events], times[events]
    still_there = times[None, :] >= when[:, None]
    log_all = _log_sum(risks, still_there)
    same = when[:, None] == when[None, :]
    log_tied = _log_sum(ours, same)
    # The number of each event among those of its time, in the order of the batch.
    number = same.tril(-1).sum(dim=1)
    share = number.to(risks.dtype) / same.sum(dim=1)
    log_risk_set = log_all + torch.log1p(-share * torch.exp(log_tied - log_all))
    return (log_risk_set - ours).mean()


def _log_sum(risks: Tensor, members: Tensor) -> Tensor:
    """log Σ exp(risks) over the members (N, B) of each row: (N,)."""
    return torch.where(members, risks[None, :], -torch.inf).logsumexp(dim=1)
