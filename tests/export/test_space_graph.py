"""In the graph, observations and actions of every kind of space are what the environments make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldflux.envs.actions import action_layout, environment_actions
from worldflux.envs.observations import ObservationReader
from worldflux.export.policy_graph import environment_action, model_observation

OBSERVATIONS = {
    "vector": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "matrix": spaces.Box(-1.0, 1.0, (2, 3), np.float64),
    "integers": spaces.Box(0, 9, (4,), np.int16),
    "discrete": spaces.Discrete(5, start=2),
    "several": spaces.MultiDiscrete([2, 3]),
    "bits": spaces.MultiBinary(4),
    "image": spaces.Box(0, 255, (16, 20, 3), np.uint8),
    "channels first": spaces.Box(0, 255, (1, 16, 20), np.uint8),
    "grey": spaces.Box(0, 255, (16, 20), np.uint8),
    "shares of 1": spaces.Box(0.0, 1.0, (16, 20, 3), np.float32),
    "mask": spaces.Box(0, 1, (16, 20, 1), np.bool_),
}
ACTIONS = {
    "centred": spaces.Box(-2.0, 2.0, (2,), np.float32),
    "uneven": spaces.Box(np.array([-1.0, 3.0]), np.array([0.5, 9.0]), dtype=np.float64),
    "matrix": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
    "integers": spaces.Box(0, 10, (3,), np.int64),
    "discrete": spaces.Discrete(4, start=1),
    "several": spaces.MultiDiscrete([2, 3]),
    "bits": spaces.MultiBinary(3),
}


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_an_observation_is_encoded_as_the_environments_do(kind: str) -> None:
    space = OBSERVATIONS[kind]
    space.seed(0)
    reader = ObservationReader("test", space)
    for _ in range(20):
        value = np.asarray(space.sample())
        given = value.astype(np.float32) if value.dtype.kind == "f" else value
        ours = model_observation(space, torch.from_numpy(np.asarray(given))).numpy()
        expected = reader.read_one(given)[""][0]
        assert ours.dtype == expected.dtype
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("kind", ACTIONS)
def test_an_action_row_is_decoded_as_the_environments_do(kind: str) -> None:
    space = ACTIONS[kind]
    rng, width = np.random.default_rng(0), sum(action_layout("test", space).widths)
    for row in rng.uniform(-1.3, 1.3, (50, width)).astype(np.float32):
        ours = environment_action(space, torch.from_numpy(row)).numpy()
        expected = environment_actions(space, row[None])[0]
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)
