"""The DreamerV3 of sheeprl (of the Nature version), timed call by call.

bench_peers.py starts this in an environment that has sheeprl. Nothing of worldflux is used here.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import gymnasium
import hydra
import numpy as np
import torch
from hydra import compose, initialize_config_module
from lightning.fabric import Fabric
from omegaconf import OmegaConf
from sheeprl.algos.dreamer_v3_5.agent import build_agent
from sheeprl.algos.dreamer_v3_5.dreamer_v3_5 import Moments, train, update_target_critic
from sheeprl.utils.metric import MetricAggregator
from sheeprl.utils.utils import dotdict

BATCH, LENGTH, OBSERVATION, ACTIONS = 16, 64, 24, 6
ACTS = 50  # in a row; one alone is too short for the clock


def calls(size: str, compiled: bool) -> dict[str, Callable[[], None]]:
    """Its own update on one fixed batch of random numbers, and its player's action."""
    overrides = [
        "exp=dreamer_v3_5",
        f"algo=dreamer_v3_5_{size}",
        "env=dummy",
        "env.num_envs=1",
        "fabric.accelerator=cpu",
        "algo.mlp_keys.encoder=[state]",
        "algo.cnn_keys.encoder=[]",
        f"algo.compile.enabled={compiled}",
        "metric.log_level=0",
    ]
    with initialize_config_module("sheeprl.configs", version_base="1.3"):
        config = dotdict(OmegaConf.to_container(compose("config", overrides), resolve=True))
    fabric = Fabric(accelerator="cpu", devices=1, precision=config.fabric.precision)
    fabric.launch()
    MetricAggregator.disabled = True
    box = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32)
    spaces = gymnasium.spaces.Dict({"state": box})
    agent = build_agent(fabric, (ACTIONS,), True, config, spaces)
    world_model, actor, critic, target, player = agent
    parameters = [p for part in (world_model, actor, critic) for p in part.parameters()]
    made = hydra.utils.instantiate(config.algo.optimizer, params=parameters, _convert_="all")
    optimizer = fabric.setup_optimizers(made)
    of_returns = config.algo.actor.moments
    percentiles = of_returns.percentile.low, of_returns.percentile.high
    moments = Moments(of_returns.decay, of_returns.max, *percentiles)
    latent = config.algo.world_model
    rows = LENGTH + config.algo.replay_context, BATCH
    deter = latent.recurrent_model.recurrent_state_size
    batch = {
        "state": torch.randn(*rows, OBSERVATION),
        "actions": torch.rand(*rows, ACTIONS) * 2 - 1,
        "rewards": torch.randn(*rows, 1),
        **{name: torch.zeros(*rows, 1) for name in ("terminated", "truncated", "is_first")},
        "deter": torch.zeros(*rows, deter, dtype=torch.float16),
        "stoch": torch.zeros(*rows, latent.stochastic_size, dtype=torch.uint8),
    }
    seen = {"state": torch.randn(1, 1, OBSERVATION)}
    player.init_states()

    def update() -> None:
        learning = world_model, actor, critic, target, optimizer, moments
        train(fabric, config, *learning, dict(batch), None, (ACTIONS,))
        update_target_critic(critic, target, config.algo.critic.tau)

    def act() -> None:
        with torch.inference_mode():
            for _ in range(ACTS):
                player.get_actions(seen)

    print(f"{sum(p.numel() for p in parameters):,} parameters", file=sys.stderr)
    return {"update": update, "act": act}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1M")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    answers, sys.stdout = sys.stdout, sys.stderr  # it prints what it likes
    began, timed = time.monotonic(), calls(given.size, given.compile)
    for call in [*timed.values()] * 3:
        call()
    print(f"ready after {time.monotonic() - began:.0f} s", file=answers, flush=True)
    for line in sys.stdin:
        name = line.strip()
        started = time.perf_counter()
        timed[name]()
        cost = 1e3 * (time.perf_counter() - started) / (ACTS if name == "act" else 1)
        print(cost, file=answers, flush=True)


if __name__ == "__main__":
    main()
