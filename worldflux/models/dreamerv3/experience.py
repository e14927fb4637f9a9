"""A replayed batch as the model learns from it: previous actions, and where the state starts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.models.dreamerv3.rssm import Latent, from_codes


class Experience(NamedTuple):
    """Steps to learn from, `[B, T, ...]`, after `context` leading steps of the batch."""

    observations: dict[str, Tensor]
    previous_actions: Tensor  # [B, T, A]: taken before each observation
    rewards: Tensor
    terminal: Tensor
    first: Tensor
    last: Tensor
    initial: Latent
    context: int


def experience_of(
    batch: Batch,
    observations: dict[str, Tensor],
    actions: Tensor,
    replay_context: int,
    zero: Latent,
) -> Experience:
    """Cut the replay context off a batch and shift its actions.

    With a context of one step and stored latents (`extras` "deter" and "stoch"), the first step
    gives only the initial latent and the previous action of the second. Otherwise the sequence
    starts from zeros, and all its steps are learned from.

    Args:
        observations: named, `[B, T, ...]`; actions: `[B, T, A]`.
        zero: the zero latent `[B, ...]`.
    """
    context = replay_context if {"deter", "stoch"} <= batch.extras.keys() else 0
    if context >= batch.length:
        context = 0
    if context:
        previous = actions[:, context - 1 : -1]
        codes = batch.extras["stoch"][:, context - 1]
        deter = batch.extras["deter"][:, context - 1].to(zero.deter.dtype)
        initial = Latent(deter, from_codes(codes, zero.stoch.shape[-1]))
    else:
        previous = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], 1)
        initial = zero
    return Experience(
        observations={name: value[:, context:] for name, value in observations.items()},
        previous_actions=previous,
        rewards=batch.rewards[:, context:].float(),
        terminal=batch.terminations[:, context:].float(),
        first=batch.firsts[:, context:].bool(),
        last=batch.lasts[:, context:].float(),
        initial=initial,
        context=context,
    )
