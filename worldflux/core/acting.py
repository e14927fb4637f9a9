"""Acting: how a world model turns observations into actions, and its memory between them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from worldflux.errors import CapabilityError

from .learning import Carry, Policy
from .outputs import Proposal
from .state import State


class Acting(nn.Module):
    """The acting side of a world model; a family that acts defines `policy` and `initial_carry`.

    Attributes:
        acting_dtype: what `policy` computes in (`computing_in`); None: float32.
    """

    acting_dtype: torch.dtype | None = None

    def initial_carry(self, num_envs: int) -> Carry:
        """Acting memory of `num_envs` environments before their first observation; none here."""
        return {}

    def policy(
        self, obs: Tensor | dict[str, Tensor], carry: Carry, is_first: Tensor, *, explore: bool
    ) -> tuple[Tensor, Carry]:
        """Actions `[N, A]` for observations `[N, ...]`, and the memory for the next step.

        `is_first` `[N]` resets the memory of single environments. `explore` adds the family's
        exploration; without it the agent acts as it is evaluated.

        Raises:
            CapabilityError: when the model defines no policy.
        """
        raise CapabilityError(
            f"{type(self).__name__} cannot act: it defines no policy",
            hint="train it on recorded data, or define policy() and initial_carry()",
        )

    def policies(self) -> dict[str, Policy]:
        """Ways to act, called as `policy`: "prior" is the learned one, "plan" searches."""
        return {"prior": self.policy}

    def policy_named(self, name: str) -> Policy:
        """One of `policies`, or CapabilityError."""
        known = self.policies()
        if name not in known:
            raise CapabilityError(
                f"{type(self).__name__} has no policy {name!r}; it has {', '.join(known)}"
            )
        return known[name]

    def carry_after(self, carry: Carry, actions: Tensor) -> Carry:
        """The memory for the next step, if these actions `[N, A]` replace those of `policy`."""
        return carry

    def proposals(
        self, obs: Tensor | dict[str, Tensor], carry: Carry, is_first: Tensor, *, explore: bool
    ) -> Iterator[Proposal]:
        """Actions `[N, A]` to act by a deadline: each is better, the last is `policy`'s.
        A model that plans proposes its prior's action at once, then one after each iteration."""
        yield Proposal(*self.policy(obs, carry, is_first, explore=explore))

    def imagined_action(self, state: State) -> Tensor:
        """The most likely action rows `[B, A]` of the learned policy; or CapabilityError."""
        raise CapabilityError(f"{type(self).__name__} has no policy of latent states")
