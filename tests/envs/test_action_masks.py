"""Action masks: no illegal move by chance, by a trained agent, or where imagination begins."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from worldflux.core.config import DreamerV3Config
from worldflux.core.learning import LearningOverrides
from worldflux.data.collector import Collector
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.action_mask import allowed_one_hot
from worldflux.envs.faults import Failure
from worldflux.envs.spec import spec_of
from worldflux.envs.vector import VectorEnvironment
from worldflux.envs.wrappers import Preparation
from worldflux.errors import EnvironmentFault, EnvironmentSetupError
from worldflux.evaluation.episodes import play_episodes
from worldflux.models.dreamerv3 import DreamerV3WorldModel
from worldflux.models.dreamerv3.imagination import imagine
from worldflux.models.dreamerv3.maths import OneHotCategorical

ACTIONS, ENVS, STEPS = 6, 50, 200  # 10,000 environment steps


class Legal(gymnasium.Env[Any, Any]):
    """A third of the moves are legal at each step; an illegal one ends the episode with -1."""

    def __init__(self, key: str | None = "action_mask", stuck: bool = False) -> None:
        self.key, self.stuck = key, stuck
        self.action_space = spaces.Discrete(ACTIONS, start=3)
        seen = spaces.Box(-1.0, 1.0, (2,), np.float32)
        mask = spaces.Box(0, 1, (ACTIONS,), np.int8)
        self.observation_space = spaces.Dict({"seen": seen, key: mask}) if key else seen

    def _observed(self) -> tuple[Any, dict[str, Any]]:
        self.mask = np.zeros(ACTIONS, np.int8)
        if not self.stuck:
            self.mask[self.np_random.integers(ACTIONS, size=2)] = 1
        seen = np.zeros(2, np.float32)
        return {"seen": seen, self.key: self.mask} if self.key else seen, {"action_mask": self.mask}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observed()

    def step(self, action: Any) -> Any:
        if not self.mask[action - 3]:
            return self._observed()[0], -1.0, True, False, {"action_mask": self.mask}
        self.steps += 1
        obs, info = self._observed()
        ends = self.steps == 30
        if ends:
            self.mask[:] = 0  # nothing is legal at the end of a game
        return obs, 0.1, ends, False, info


def environments(make: Any, count: int = ENVS) -> VectorEnvironment:
    return VectorEnvironment("Legal-v0", make, count)


def agent(spec: Any) -> DreamerV3WorldModel:
    torch.manual_seed(0)
    config = DreamerV3Config(
        **spec.model_fields(),
        deter_dim=16, stoch_discrete=3, stoch_classes=4, hidden_dim=16, blocks=4,
        imagination_horizon=3, actor_critic=True, actor_unimix=0.05,
    )  # fmt: skip
    return DreamerV3WorldModel(config)


def as_info(index: int) -> gymnasium.Env[Any, Any]:
    return Preparation(action_mask=True).stack(Legal(None))


def played(make: Any, trained: bool, steps: int = STEPS) -> ReplayBuffer:
    """By default 10,000 steps of the warm-up, or of an agent trained on such steps."""
    envs = environments(make)
    spec = envs.spec
    model = agent(spec)
    columns = {name: shape for name, (shape, _) in model.replay_columns().items()}
    buffer = ReplayBuffer(
        20_000, spec.replay_shapes, spec.action_dim, num_envs=ENVS, extra_columns=columns
    )
    collector = Collector(envs, buffer, seed=0)
    try:
        if trained:
            for _ in range(40):
                collector.collect_random()
            (phase,) = model.phases(LearningOverrides(learning_rate=1e-2))
            for _ in range(5):
                batch = buffer.sample(8, 9, within_episode=False)
                phase.optimizer.zero_grad()
                phase.loss(batch, {}).loss.backward()
                phase.optimizer.step()
            buffer.clear()
        for _ in range(steps):
            if trained:
                collector.collect(model)
            else:
                collector.collect_random()
    finally:
        envs.close()
    return buffer


@pytest.mark.parametrize(
    ("make", "trained"), [(lambda _: Legal(), False), (as_info, True)], ids=["random", "trained"]
)
def test_no_illegal_move_in_10_000_steps(make: Any, trained: bool) -> None:
    buffer = played(make, trained)
    rows = buffer.rows(0, buffer.steps_written)
    acted = ~rows["is_last"]
    legal = (rows["action"] * rows["obs/action_mask"]).sum(-1) == 1
    assert (rows["reward"] >= 0).all()
    assert legal[acted].all()
    assert (~rows["is_first"][1:]).sum() > 9_000
    assert rows["is_terminal"].sum() > 200  # whole games


@pytest.mark.parametrize("trained", [False, True])
def test_without_masks_there_are_illegal_moves(trained: bool) -> None:
    buffer = played(lambda _: Legal("hint"), trained, 30)
    assert (buffer.rows(0, buffer.steps_written)["reward"] < 0).sum() > 50


@pytest.mark.parametrize("random", [False, True])
def test_evaluation_makes_no_illegal_move(random: bool) -> None:
    envs = environments(lambda _: Legal(), 5)
    results = play_episodes(None if random else agent(envs.spec), envs, 10, 0)
    envs.close()
    assert results.returns.tolist() == pytest.approx([3.0] * 10)


def test_imagination_begins_with_an_allowed_action() -> None:
    model = agent(spec_of("Legal", Legal().observation_space, Legal().action_space, None))
    rows = allowed_one_hot(np.random.default_rng(0), np.ones((64, ACTIONS)))
    start, mask = model.rssm.initial(64), torch.from_numpy(rows)
    assert torch.equal(imagine(model, start, mask).actions[:, 0], mask)
    assert not torch.equal(imagine(model, start).actions[:, 0], mask)


@pytest.mark.parametrize("unimix", [0.0, 0.1])
@given(data=st.data())
def test_the_distribution_over_what_is_allowed(unimix: float, data: Any) -> None:
    """As if the other choices did not exist."""
    logits = torch.tensor(data.draw(st.lists(st.floats(-50, 50), min_size=2, max_size=6)))
    mask = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=len(logits), max_size=len(logits)))
    )
    kept = mask if mask.any() else torch.ones_like(mask)  # the end of an episode
    masked = OneHotCategorical(logits, unimix, mask.float())
    alone = OneHotCategorical(logits[kept], unimix)
    torch.testing.assert_close(masked.log_probs[kept], alone.log_probs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(masked.entropy(), alone.entropy(), rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    for row in (masked.mode(), *(masked.sample() for _ in range(5))):
        assert (row[kept].sum(), row[~kept].sum()) == (1, 0)
        assert torch.isfinite(masked.log_prob(row))


def test_several_actions_have_one_mask_side_by_side() -> None:
    space = spaces.Dict({"action_mask": spaces.MultiBinary(5), "x": spaces.Box(-1, 1, (1,))})
    spec = spec_of("Two", space, spaces.MultiDiscrete([2, 3]), None)
    assert spec.mask_parts == (2, 3)
    mask = np.tile(np.float32([0, 1, 1, 0, 1]), (200, 1))
    rows = spec.random_actions(np.random.default_rng(0), 200, {"action_mask": mask})
    assert rows[:, 1].all()
    assert set(rows[:, 2:].argmax(1)) == {0, 2}
    policy = agent(spec).actor(torch.randn(200, agent(spec).config.feature_dim), torch.tensor(mask))
    assert (policy.sample().numpy() * mask).sum() == 400


def test_what_is_refused() -> None:
    with pytest.raises(EnvironmentFault, match=r"observation\['action_mask'\] allows no action"):
        environments(lambda _: Legal(stuck=True), 1).reset(0)
    wide = spaces.Dict({"action_mask": spaces.MultiBinary(4)})
    with pytest.raises(EnvironmentSetupError, match="has 3 discrete actions"):
        spec_of("Wide", wide, spaces.Discrete(3), None)
    with pytest.raises(EnvironmentSetupError, match="needs discrete actions"):
        Preparation(action_mask=True).stack(gymnasium.make("Pendulum-v1"))
    bare = Preparation(action_mask=True).stack(gymnasium.make("CartPole-v1"))
    with pytest.raises(Failure, match="is missing"):
        bare.reset()
