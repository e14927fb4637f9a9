"""What each logged number means: one table for the page and docs/metrics.md."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """What a metric is, its unit, and what a healthy run shows."""

    meaning: str
    unit: str = ""
    healthy: str = ""


_FALLS = "falls fast at first, then slowly; it may rise again while the agent finds new states"

GLOSSARY: dict[str, Metric] = {
    "train/episode_return": Metric(
        "Sum of rewards of the training episodes since the last row, exploration included.",
        "reward",
        "rises; below the evaluation return, which acts without exploration",
    ),
    "train/episode_length": Metric(
        "Mean length of the training episodes since the last row.",
        "environment steps",
        "rises where surviving pays, falls where speed does, constant with a fixed time limit",
    ),
    "eval/return_mean": Metric(
        "Mean return of the evaluation episodes, without exploration (eval.jsonl: return_mean).",
        "reward",
        "rises well above the random policy's return",
    ),
    "loss/model": Metric("Weighted sum of all world-model losses of the update.", "", _FALLS),
    "loss/consistency": Metric(
        "TD-MPC2: squared distance between predicted latents and those encoded from what followed.",
        "",
        f"{_FALLS}; near 0 from the first update on means collapsed latents",
    ),
    "loss/reward": Metric(
        "How badly rewards are predicted: cross-entropy over two-hot bins.", "nats", _FALLS
    ),
    "loss/value": Metric(
        "TD-MPC2: cross-entropy of the Q ensemble against its bootstrapped targets.",
        "nats",
        "settles; steady growth means values that run away",
    ),
    "loss/termination": Metric("TD-MPC2: cross-entropy of predicted true ends.", "nats", _FALLS),
    "loss/continue": Metric(
        "DreamerV3: cross-entropy of the predicted continuation of episodes.", "nats", _FALLS
    ),
    "loss/reconstruction": Metric(
        "How far decoded observations are from the true ones (squared error, symlog for vectors).",
        "",
        _FALLS,
    ),
    "loss/kl_dynamics": Metric(
        "DreamerV3: KL divergence that trains the prior to predict the posterior.",
        "nats",
        "above its free nats (1) in the beginning, near them later; at 1 exactly it no longer "
        "trains",
    ),
    "loss/kl_representation": Metric(
        "DreamerV3: KL divergence that keeps the posterior predictable.",
        "nats",
        "as kl_dynamics, which has the same value and another gradient",
    ),
    "loss/policy": Metric(
        "TD-MPC2: the policy prior's objective, minus scaled value and entropy.",
        "",
        "no trend to expect: its scale follows the values",
    ),
    "loss/actor": Metric(
        "DreamerV3: policy gradient on imagined trajectories, with the entropy bonus.",
        "",
        "small, around 0; no trend to expect",
    ),
    "loss/critic": Metric(
        "DreamerV3: cross-entropy of values on imagined trajectories.", "nats", "settles"
    ),
    "loss/replay_critic": Metric(
        "DreamerV3: cross-entropy of values on replayed trajectories.", "nats", "settles"
    ),
    "policy/entropy": Metric(
        "Entropy of the policy: how undecided it is.",
        "nats",
        "falls slowly; a fast fall to its floor is a policy that stopped exploring",
    ),
    "policy/scaled_entropy": Metric(
        "TD-MPC2: entropy scaled by the number of action dimensions, as the loss uses it.",
        "",
        "falls slowly",
    ),
    "value/scale": Metric(
        "TD-MPC2: running range (5 % to 95 %) of the values, which the policy loss is divided by.",
        "reward",
        "grows with the returns, then settles",
    ),
    "value/imagined_return": Metric(
        "DreamerV3: mean lambda-return of imagined trajectories.",
        "reward",
        "follows the true return, discounted; far above it means an exploited model",
    ),
    "value/imagined_reward": Metric(
        "DreamerV3: mean reward of imagined steps.", "reward", "follows the true reward a step"
    ),
    "value/advantage_size": Metric(
        "DreamerV3: mean size of the normalised advantages.", "", "between about 0.01 and 1"
    ),
    "grad_norm/*": Metric(
        "Norm of the gradient of a phase, before clipping.",
        "",
        "steady; spikes are clipped, a constant rise announces divergence",
    ),
    "skipped/*": Metric(
        "1 where mixed precision skipped the update (its gradient overflowed).",
        "",
        "0, with a 1 now and then",
    ),
    "termination_rate": Metric("Share of true ends in the batch.", "", "as in the data"),
    "termination_f1": Metric("F1 score of predicted true ends.", "", "rises towards 1"),
    "rate/updates_per_s": Metric(
        "Gradient updates a second of training time.", "1/s", "steady; a fall is a busy machine"
    ),
    "rate/env_steps_per_s": Metric(
        "Environment steps a second of training time.", "1/s", "steady; 0 while pretraining"
    ),
    "system/processor_cores": Metric("Processor cores that the trainer kept busy.", "cores", ""),
    "system/memory_gib": Metric(
        "Memory of the trainer's process.", "GiB", "flat once the replay is full"
    ),
    "system/device_memory_gib": Metric("Memory reserved on the accelerator.", "GiB", "flat"),
}


def to_markdown() -> str:
    """The table of docs/metrics.md."""
    rows = ["| metric | what it is | unit | healthy |", "|---|---|---|---|"]
    for name, metric in GLOSSARY.items():
        rows.append(f"| `{name}` | {metric.meaning} | {metric.unit} | {metric.healthy} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(to_markdown(), end="")
