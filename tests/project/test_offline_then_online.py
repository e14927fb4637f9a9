"""Recorded data first, then the agent's own as well, with actions to imitate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldflux import create_world_model
from worldflux.core.batch import DEMONSTRATION, Batch
from worldflux.core.learning import LearningOverrides
from worldflux.data.collector import Collector
from worldflux.data.demonstrations import Imitation, OfflineThenOnlineSource, RecordedSource
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sources import CollectionSchedule
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import ConfigurationError
from worldflux.project.manifest import read_manifest
from worldflux.project.run import train_project
from worldflux.training.callback import Callback

FAMILIES = {
    "tdmpc2:ci": ("architecture.iterations=1",),
    "dreamer:ci": ("training.sequence_length=9", "architecture.imagination_horizon=3"),
}
SOURCE = (
    'data.source="npz"',
    'data.path="steps.npz"',
    "data.imitation_weight=0.5",
    "data.imitation_decay_updates=4",
    "online_collection.after_offline_updates=4",
    "online_collection.collect_steps_per_update=3",
    "evaluation.episodes=0",
    "training.total_steps=12",
    "training.save_interval=100",
    "training.batch_size=4",
)


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_update(self, trainer: Any) -> None:
        if trainer.step == self.step:
            trainer.stop_requested = True


def recorded_columns(rows: int = 60) -> dict[str, np.ndarray]:
    env = gymnasium.make("Pendulum-v1")
    env.action_space.seed(0)
    obs = [env.reset(seed=0)[0]]
    actions, rewards = [], []
    for _ in range(rows):
        actions.append(env.action_space.sample())
        following, reward, *_ = env.step(actions[-1])
        obs.append(following)
        rewards.append(reward)
    env.close()
    ends = np.arange(rows) == rows - 1
    return {
        "observations": np.array(obs[:-1]),
        "next_observations": np.array(obs[1:]),
        "actions": np.array(actions),
        "rewards": np.array(rewards),
        "terminals": np.zeros(rows, bool),
        "timeouts": ends,
    }


def architecture(root: Path, model: str) -> None:
    """The small project's own settings are TD-MPC2's."""
    toml = root / "worldflux.toml"
    text = toml.read_text().replace("warmup_transitions = 30\n", "")
    if not model.startswith("tdmpc2"):
        start, end = text.index("[architecture]"), text.index("[training]")
        text = (text[:start] + text[end:]).replace("tdmpc2:ci", model)
    toml.write_text(text)


@pytest.mark.parametrize("model", FAMILIES)
def test_stopped_in_either_phase_it_ends_as_if_never_stopped(
    tiny_project: Path, model: str
) -> None:
    architecture(tiny_project, model)
    np.savez(tiny_project / "steps.npz", **recorded_columns())
    flags = (*SOURCE, *FAMILIES[model])

    def run(folder: str, **options: Any) -> dict[str, Any]:
        overrides = (*flags, f'training.output_dir="{folder}"')
        outcome = train_project(tiny_project, overrides=overrides, say=lambda _: None, **options)
        return read_manifest(outcome.folder)

    through = run("through")
    assert through["data_mode"] == "offline_online"
    assert through["run_classification"] == "meaningful_local_training"
    assert through["offline_data"]["transitions"] == 60
    assert through["env_steps"] == 3 * (11 - 4)
    run("stopped", callbacks=[StopAt(3)])
    run("stopped", callbacks=[StopAt(9)], resume=True)
    assert run("stopped", resume=True)["weights_sha256"] == through["weights_sha256"]


def test_a_model_that_cannot_imitate_is_refused(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldflux.models.tdmpc2.TDMPC2WorldModel.imitates", False)
    np.savez(tiny_project / "steps.npz", **recorded_columns())
    with pytest.raises(ConfigurationError, match="does not imitate recorded actions"):
        train_project(tiny_project, overrides=SOURCE, say=lambda _: None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["online_collection.after_offline_updates=5"], "needs recorded data"),
        (["data.imitation_weight=1"], "needs recorded data"),
        ([*SOURCE, "environment=none"], "nothing to collect in"),
        (
            [*SOURCE, "training.total_steps=4"],
            r"after_offline_updates = 4, and the run ends after training\.total_steps = 4",
        ),
    ],
)
def test_what_is_refused(tiny_project: Path, overrides: list[str], message: str) -> None:
    np.savez(tiny_project / "steps.npz", **recorded_columns())
    with pytest.raises(ConfigurationError, match=message):
        train_project(tiny_project, overrides=overrides, say=lambda _: None)
    assert not (tiny_project / "outputs").exists()


# --------------------------------------------------------------------------- the mixture


class Ones(gymnasium.Env[Any, Any]):
    observation_space = spaces.Box(-9.0, 9.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.ones(1, np.float32), 0.0, False, False, {}


class Still:
    device = torch.device("cpu")

    def initial_carry(self, count: int) -> dict[str, torch.Tensor]:
        return {"latent": torch.zeros(count, 1)}

    def policy(self, obs: Any, carry: Any, first: Any, *, explore: bool) -> Any:
        return torch.zeros(len(obs), 1), carry


def test_the_mixture_its_weights_and_what_is_written_back() -> None:
    extra = {"latent": (1,)}
    old = ReplayBuffer(50, (1,), 1, extra_columns=extra)
    old.add_episode(-np.ones((31, 1)), np.zeros((30, 1)), np.zeros(30))
    envs = VectorEnvironment("Ones-v0", lambda _: Ones(), 2)
    new = ReplayBuffer(50, (1,), 1, num_envs=2, extra_columns=extra)
    recorded = RecordedSource(old, Imitation(0.8, 10, start=4))
    source = OfflineThenOnlineSource(
        recorded, Collector(envs, new, 0), CollectionSchedule(0, 4, 4.0), recorded_share=0.25
    )
    model: Any = Still()
    shares, weights = [], []
    for update in range(8):
        source.collect(model, update)
        batch = source.sample(8, 3, torch.device("cpu"))
        assert isinstance(batch.obs, torch.Tensor)
        is_old = batch.obs[:, 0, 0] < 0
        shares.append(int(is_old.sum()))
        imitated = batch.extras.get(DEMONSTRATION, torch.zeros(8, 3))
        assert not imitated[~is_old].any()
        weights.append(float(imitated[is_old].mean()))
    envs.close()
    # 4 steps are due before update 5, which are two rows of each stream: no sequence of 3 yet.
    assert shares == [8, 8, 8, 8, 8, 8, 2, 2]
    assert weights == pytest.approx([0.8, 0.8, 0.8, 0.8, 0.8, 0.72, 0.64, 0.56])
    marks = torch.arange(1.0, 25.0).view(8, 3, 1)
    source.write_back(batch, {"latent": marks})
    for buffer, rows in ((old, is_old), (new, ~is_old)):
        written = set(marks[rows].flatten().tolist())
        latents = buffer.rows(0, buffer.steps_written, "extra/latent")["extra/latent"]
        assert set(latents[latents != 0].tolist()) <= written
        assert (latents != 0).any()


def test_the_weight_stays_without_a_decay() -> None:
    assert [Imitation(0.3).at(update) for update in (0, 10**6)] == [0.3, 0.3]


# --------------------------------------------------------------------------- imitation


def demonstrations(weight: float) -> Batch:
    """The action is half of what is observed."""
    obs = torch.rand(32, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    none = torch.zeros(32, 4)
    batch = Batch(obs=obs, actions=obs / 2, rewards=none, terminations=none.bool())
    if weight:
        batch.extras[DEMONSTRATION] = torch.full((32, 4), weight)
    return batch


@pytest.mark.parametrize("model_id", FAMILIES)
def test_the_policy_learns_to_act_as_recorded(model_id: str) -> None:
    """The likelihood of the recorded actions grows; nothing but the policy learns from it."""
    planning = model_id.startswith("tdmpc2")
    sizes: dict[str, Any] = {"horizon": 3}
    if not planning:
        sizes = {"imagination_horizon": 2, "actor_critic": True, "actor_lr": 3e-3}
    torch.manual_seed(0)
    model = create_world_model(model_id, obs_shape=(2,), action_dim=2, **sizes)
    phases = model.phases(LearningOverrides(learning_rate=1e-3))

    def update(weight: float, steps: bool) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        torch.manual_seed(1)
        scratch: dict[str, torch.Tensor] = {}
        losses, gradients = {}, {}
        for phase in phases:
            phase.optimizer.zero_grad()
            output = phase.loss(demonstrations(weight), scratch)
            output.loss.backward()
            losses |= {name: float(value.detach()) for name, value in output.components.items()}
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    gradients[name] = parameter.grad.clone()
            if steps:
                phase.optimizer.step()
        return losses, gradients

    without, plain = update(0.0, False)
    first, pulled = update(10.0, False)
    assert first.keys() - without.keys() == {"imitation"}
    changed = {name for name in plain if not torch.equal(plain[name], pulled[name])}
    policy = "networks.policy." if planning else "actor."
    assert changed
    assert all(name.startswith(policy) for name in changed)
    for _ in range(20):
        last, _ = update(10.0, True)
    assert last["imitation"] < first["imitation"] - 1.0
