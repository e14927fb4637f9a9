"""Reading BMPC golden files: configuration, model, replay and batches, all from their content."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldflux.core.config import BMPCConfig
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sources import ReplaySource
from worldflux.models.bmpc import BMPCWorldModel
from worldflux.models.tdmpc2.official import (
    SETTINGS,
    fields_from_tensors,
    newest_layout,
    official_names,
)

from .tdmpc2_files import RENAMED, SAME_NAME

OWN = (
    "expl_log_std_min", "expl_log_std_max", "td_horizon", "reanalyze_interval",
    "reanalyze_batch_size", "reanalyze_horizon",
)  # fmt: skip
EXPERT = ("expert_mean", "expert_std", "expert_value")


def tensors_of(state: dict[str, Any]) -> dict[str, Tensor]:
    """Weights of an official state_dict, without its four log-deviation settings."""
    settings = {*SETTINGS, "expl_log_std_min", "expl_log_std_dif"}
    return newest_layout({name: state[name] for name in state if name not in settings})[1]


def config_of(golden: dict[str, Any]) -> BMPCConfig:
    """Our configuration of the official numbers of a file; shapes from its tensors."""
    cfg = golden["cfg"]
    fields = fields_from_tensors(tensors_of(golden["state_dict"]))
    fields.update({name: cfg[name] for name in (*SAME_NAME, *OWN) if cfg.get(name) is not None})
    fields.update({ours: cfg[name] for name, ours in RENAMED.items() if name in cfg})
    discount = float(golden["discount"])
    return BMPCConfig(**fields, gamma=discount, init_v="published")


def weights_of(model: BMPCWorldModel) -> dict[str, Tensor]:
    """The model's weights under their official names."""
    state = model.state_dict()
    return {official: state[ours] for ours, official in official_names(model).items()}


def model_of(golden: dict[str, Any]) -> BMPCWorldModel:
    """A model with the configuration of a file and its perturbed weights."""
    model = BMPCWorldModel(config_of(golden))
    own, tensors = weights_of(model), tensors_of(golden["state_dict"])
    assert own.keys() == tensors.keys()
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return model


class GoldenReplay:
    """The official buffer in ours.

    Its row k of an episode holds the action that led there, ours the action taken next.
    """

    def __init__(self, golden: dict[str, Any]) -> None:
        rows = golden["buffer"]
        self.episode = rows["episode"]
        count, actions = rows["action"].shape
        columns = {"expert_mean": (actions,), "expert_std": (actions,), "expert_value": (1,)}
        shape = tuple(rows["obs"].shape[1:])
        self.buffer = ReplayBuffer(count, shape, actions, extra_columns=columns)
        last = torch.cat([self.episode[1:] != self.episode[:-1], torch.tensor([True])])
        first = last.roll(1)
        for k in range(count):
            taken = {n: rows[n][k + 1 if not last[k] else k].reshape(-1).numpy() for n in EXPERT}
            action = rows["action"][k + 1] if not last[k] else torch.zeros(actions)
            reward = rows["reward"][k].nan_to_num()
            ends = np.array([bool(last[k])])
            self.buffer.add(
                rows["obs"][k : k + 1].numpy(),
                action[None].numpy(),
                reward[None].numpy(),
                np.array([bool(first[k])]),
                ends,
                np.zeros(1, bool),
                {name: value[None] for name, value in taken.items()},
            )
        self.last = last
        self.source = ReplaySource(self.buffer)

    def batch(self, update: dict[str, Any]) -> Any:
        """The rows that the official sampler drew, as our replay hands them out."""
        index = update["index"].T.numpy()  # [B, H + 1]
        self.buffer._draw.last_rows = lambda *_, **__: index[:, -1]  # type: ignore[method-assign]
        batch = self.buffer.sample(len(index), index.shape[1])
        assert np.array_equal(batch.extras["replay_index"].numpy(), index)
        return batch

    def experts(self, name: str) -> Tensor:
        """A column in the official layout: of row k the expert of the action that led there."""
        found = torch.from_numpy(self.buffer.columns[f"extra/{name}"][:, 0].copy())
        moved = found.roll(1, 0)
        moved[self.last.roll(1)] = torch.nan
        return moved
