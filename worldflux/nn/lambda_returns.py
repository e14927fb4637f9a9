"""Lambda returns with separate flags for a true end and for the last step of a stretch."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_returns(
    last: Tensor,
    terminal: Tensor,
    reward: Tensor,
    bootstrap: Tensor,
    discount: float,
    lambda_: float,
) -> Tensor:
    """TD(lambda) returns R_0 .. R_{T-2} over a stretch of T states.

        live_t = (1 - terminal_t) * discount          cont_t = (1 - last_t) * lambda
        R_{T-1} = bootstrap_{T-1}
        R_t = reward_{t+1} + live_{t+1} [(1 - cont_{t+1}) bootstrap_{t+1} + cont_{t+1} R_{t+1}]

    `reward_t` arrived with state t, so `reward_0` is not used. A time limit has last=1 and
    terminal=0: the return stops there and bootstraps.

    Args:
        last, terminal: `[..., T]` in [0, 1]; in imagination terminal is 1 - continue probability.
        reward, bootstrap: `[..., T]`.

    Returns: `[..., T - 1]`.

    Source: DreamerV3 (Nature 2025), eq. 4, in the general form of the official code.
    """
    assert last.shape == terminal.shape == reward.shape == bootstrap.shape, (
        last.shape,
        terminal.shape,
        reward.shape,
        bootstrap.shape,
    )
    live = (1 - terminal.to(reward.dtype))[..., 1:] * discount
    cont = (1 - last.to(reward.dtype))[..., 1:] * lambda_
    base = reward[..., 1:] + (1 - cont) * live * bootstrap[..., 1:]
    decay = live * cont
    running = bootstrap[..., -1]
    returns = []
    for t in reversed(range(base.shape[-1])):
        running = base[..., t] + decay[..., t] * running
        returns.append(running)
    return torch.stack(returns[::-1], dim=-1)
