"""What environments return, whatever objects it is made of."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces

from worldflux.envs.faults import Failure, flag, number
from worldflux.envs.observations import ObservationReader


def test_tensors_with_gradients_are_told_and_plain_ones_are_taken() -> None:
    reader = ObservationReader("Env-v0", spaces.Box(-1.0, 1.0, (2,)))
    assert number(torch.tensor(2.5)) == 2.5
    assert flag("terminated", torch.tensor(True)) is True
    assert reader.read_one(torch.ones(2))[""].tolist() == [[1.0, 1.0]]
    with pytest.raises(Failure, match="expected a number"):
        number(torch.tensor(2.5, requires_grad=True))
    with pytest.raises(Failure, match="expected True or False"):
        flag("terminated", torch.tensor(1.0, requires_grad=True))
    with pytest.raises(Failure, match="is no array"):
        reader.read_one(torch.ones(2, requires_grad=True))
