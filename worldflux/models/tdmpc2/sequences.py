"""From the project's batch-major alignment to TD-MPC2's time-major transitions.

In a `Batch` the reward at index t came with o_t; here `rewards[t]` and `terminated[t]` belong to
the action taken at t, so both move by one step.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.errors import ShapeMismatchError


@dataclass(frozen=True)
class Transitions:
    """H consecutive transitions of B sequences.

    `obs` [H + 1, B, ...], `actions` [H, B, A], `rewards`, `terminated` and `valid` [H, B] floats,
    `task` [B] or None. `valid` is 0 from the first step on that would cross into another episode.
    """

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    valid: Tensor
    task: Tensor | None


def transitions(batch: Batch, horizon: int, modality: str, multi_task: bool) -> Transitions:
    """The first `horizon` transitions of a batch [B, T, ...]; further rows are not used.

    Raises:
        ShapeMismatchError: when the sequences are shorter than horizon + 1 rows, or the
            observation or task is missing.
    """
    rows = horizon + 1
    if batch.length < rows:
        raise ShapeMismatchError(
            f"TD-MPC2 with horizon {horizon} learns from sequences of {rows} rows, not "
            f"{batch.length}",
            hint=f"set training.sequence_length = {rows}, or leave it out",
        )
    obs = _named(batch, modality)
    crossed = batch.firsts[:, 1:rows].transpose(0, 1).float().cumsum(0)
    return Transitions(
        obs=obs[:, :rows].transpose(0, 1),
        actions=batch.actions[:, :horizon].transpose(0, 1).float(),
        rewards=batch.rewards[:, 1:rows].transpose(0, 1).float(),
        terminated=batch.terminations[:, 1:rows].transpose(0, 1).float(),
        valid=(crossed == 0).float(),
        task=_named(batch, "task")[:, 0].long() if multi_task else None,
    )


def _named(batch: Batch, name: str) -> Tensor:
    if not isinstance(batch.obs, dict):
        if name != "task":
            return batch.obs
        raise ShapeMismatchError('several tasks need batch.obs = {..., "task": indices [B, T]}')
    if name not in batch.obs:
        raise ShapeMismatchError(f"batch.obs has no {name!r}; it has {sorted(batch.obs)}")
    return batch.obs[name]
