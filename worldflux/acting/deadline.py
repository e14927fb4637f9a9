"""`DeadlineAgent`: the best action that the time allows, and how good it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from worldflux.core.learning import Carry
from worldflux.core.outputs import Proposal

from .agent import Agent

PLANNING_SHARE = 0.4  # of the deadline; the rest is for the way back and for a busy machine
FORGETTING = 0.999


@dataclass(frozen=True)
class Answer:
    """An action of the environment's own, and what it is.

    Attributes:
        how: "plan", "prior" where the time allowed no planning iteration, or "policy" of a model
            that does not plan.
        iterations, of: planning iterations done, and those of a whole plan.
        ms: milliseconds that it took.
    """

    action: Any
    how: str
    iterations: int
    of: int
    ms: float


def act_until(
    agent: Agent, observation: Any, is_first: Any, enough: Callable[[Proposal], bool]
) -> tuple[Any, Proposal]:
    """The action of the first proposal that is `enough`, or of the whole plan; and the proposal."""
    chosen: list[Proposal] = []

    def policy(
        obs: Tensor | dict[str, Tensor], carry: Carry, first: Tensor, *, explore: bool
    ) -> tuple[Tensor, Carry]:
        for proposal in agent.model.proposals(obs, carry, first, explore=explore):
            if enough(proposal):
                break
        chosen.append(proposal)
        return proposal.action, proposal.carry

    return agent.act(observation, is_first, policy=policy), chosen[0]


class Pace:
    """How long each planning iteration lately took, at most, in seconds."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def expected(self, iteration: int) -> float:
        return self._seconds.get(iteration, self._seconds.get(iteration - 1, 0.0))

    def took(self, iteration: int, seconds: float) -> None:
        """Note what an iteration took; 0 for one that was left out, so that it is tried again."""
        self._seconds[iteration] = max(seconds, FORGETTING * self.expected(iteration))


class DeadlineAgent:
    """Acts as `agent`, by a deadline: the prior's action at once, then the plan as time allows.

    A planning iteration is begun if it fits, as far as the last ones tell. Where the whole plan
    fits, the actions are those of `Agent.act`. A model that does not plan acts as always.

    Args:
        deadline_s: seconds from the call of `act` to its answer.
        pace: of agents that share a model and a thread.
    """

    def __init__(self, agent: Agent, deadline_s: float, pace: Pace | None = None) -> None:
        self.agent, self.deadline_s = agent, deadline_s
        self._pace = pace or Pace()

    def act(
        self,
        observation: Any,
        is_first: bool | None = None,
        *,
        since: float | None = None,
        share: Callable[[], float] = lambda: 1.0,
    ) -> Answer:
        """The best action that the time allows; arguments and errors as of `Agent.act`.

        Args:
            since: when the time began (`time.monotonic`), if that was before this call.
            share: of the remaining time, which may change meanwhile: others wait as well.
        """
        began = time.monotonic()
        since = began if since is None else since
        planning_s = since + PLANNING_SHARE * self.deadline_s - began
        last = began

        def enough(proposal: Proposal) -> bool:
            nonlocal last
            proposal.action.cpu()  # waits for an accelerator, so that its time counts
            now, done = time.monotonic(), proposal.iterations
            self._pace.took(done, now - last)
            last = now
            if now + self._pace.expected(done + 1) <= began + planning_s * share():
                return False
            if done < proposal.of:
                self._pace.took(done + 1, 0.0)
            return True

        action, proposal = act_until(self.agent, observation, is_first, enough)
        how = "policy" if not proposal.of else "plan" if proposal.iterations else "prior"
        ms = 1000 * (time.monotonic() - since)
        return Answer(action, how, proposal.iterations, proposal.of, ms)
