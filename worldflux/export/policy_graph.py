"""The whole step of acting as one pure function of tensors, for every format of an export.

Inputs and outputs go by name, of one environment without a batch axis, in the environment's own
values: "observation" (or "observation_NAME" of each part), "is_first", the memory "memory_NAME" and
what the policy draws, "noise_KIND"; then "action" and the next memory, "next_NAME". Memory starts
as zeros, with `is_first` true. Observations and actions that are no whole numbers are float32.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from worldflux.core.world_model import WorldModel
from worldflux.envs.actions import as_classes
from worldflux.envs.spaces import channel_axis, is_image, is_whole, named_leaves
from worldflux.errors import CapabilityError

from .draws import Draw, Draws


def model_observation(space: spaces.Space, value: Tensor) -> Tensor:
    """A part's value as the model observes it: bytes `[C, H, W]`, or a float32 vector."""
    if is_image(space):
        return _pixels(space, value)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        indices = (value - torch.from_numpy(np.array(space.start))).flatten().unbind()
        widths = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        pairs = zip(indices, widths.tolist(), strict=True)
        return torch.cat([(torch.arange(width) == index).float() for index, width in pairs])
    return value.flatten().float()


def _pixels(space: spaces.Box, value: Tensor) -> Tensor:
    assert space.dtype is not None
    if space.dtype.kind == "b":
        value = value.to(torch.uint8) * 255
    elif space.dtype.kind == "f":
        value = torch.round(value * 255.0)
    axis = channel_axis(space)
    if axis is None:
        value = value.unsqueeze(0)
    elif axis == 2:
        value = value.permute(2, 0, 1)
    return value.to(torch.uint8)


def environment_action(space: spaces.Space, row: Tensor) -> Tensor:
    """The environment's own action of a model's action row `[A]`."""
    space = as_classes(space)
    if isinstance(space, spaces.Discrete):
        return row.argmax(-1) + int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        parts = row.split(np.ravel(space.nvec).tolist())
        chosen = torch.stack([part.argmax(-1) for part in parts]).reshape(space.shape)
        return (chosen + torch.from_numpy(space.start)).to(_dtype(space))
    assert isinstance(space, spaces.Box)
    low, high = (torch.from_numpy(np.float32(end)) for end in (space.low, space.high))
    unit = row.clamp(-1.0, 1.0).reshape(space.shape)
    if is_whole(space):
        chosen = low + torch.floor((unit + 1.0) / 2.0 * (high - low + 1.0))
        return torch.minimum(chosen, high).to(_dtype(space))
    middle, half = (high + low) / 2, (high - low) / 2
    return torch.minimum(torch.maximum(middle + half * unit, low), high)


def _dtype(space: spaces.Space) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, str(space.dtype))
    return dtype


@dataclass(frozen=True)
class Port:
    """A named tensor that goes in or comes out, its dtype as numpy and torch name it."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def zeros(self) -> Tensor:
        return torch.zeros(self.shape, dtype=getattr(torch, self.dtype))


class PolicyGraph(nn.Module):
    """Observation, memory and noise -> action and next memory, as the agent is evaluated.

    Args:
        policy: "prior" or "plan", see `WorldModel.policies`.

    Attributes:
        inputs: what `forward` takes by name, in this order.
        outputs: what it returns, a dict in this order.
        program: the same as an ATen graph, with the weights that it reads.

    Raises:
        CapabilityError: when the model does not act that way, or not by a graph of tensors.
    """

    def __init__(
        self,
        model: WorldModel,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        policy: str = "prior",
    ) -> None:
        super().__init__()
        self.model, self.act, self.action_space = model, model.policy_named(policy), action_space
        self.leaves = named_leaves(observation_space)
        self.ports = {name: _port(_observation(name), leaf) for name, leaf in self.leaves.items()}
        self.schedule, self.memory = self._one_step()
        self.noise: dict[str, int] = {}
        for draw in self.schedule:
            self.noise[draw.kind] = self.noise.get(draw.kind, 0) + prod(draw.shape)
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch's own
            self.program = self._exported()

    @property
    def inputs(self) -> tuple[Port, ...]:
        return (
            *self.ports.values(),
            Port("is_first", (), "bool"),
            *(_tensor_port(f"memory_{name}", tensor) for name, tensor in self.memory.items()),
            *(
                Port(f"noise_{kind}", (count,), _dtype_of(kind))
                for kind, count in self.noise.items()
            ),
        )

    @property
    def outputs(self) -> tuple[Port, ...]:
        memory = (_tensor_port(f"next_{name}", tensor) for name, tensor in self.memory.items())
        return (_port("action", self.action_space), *memory)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """One step; shapes and dtypes are those of `inputs` and `outputs`."""
        given = {name: inputs[f"memory_{name}"].unsqueeze(0) for name in self.memory}
        noise = {kind: inputs[f"noise_{kind}"] for kind in self.noise}
        with Draws(noise, self.schedule):
            rows, carry = self.act(
                self.observed(inputs),
                {**self.model.initial_carry(1), **given},
                inputs["is_first"].view(1),
                explore=False,
            )
        action = environment_action(self.action_space, rows.squeeze(0))
        return {"action": action} | {f"next_{name}": carry[name][0] for name in self.memory}

    def observed(self, inputs: dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """The model's own observations `[1, ...]`."""
        observed = {
            name: model_observation(leaf, inputs[self.ports[name].name]).unsqueeze(0)
            for name, leaf in self.leaves.items()
        }
        return observed.get("", observed)

    def _one_step(self) -> tuple[tuple[Draw, ...], dict[str, Tensor]]:
        """What a step draws, and the memory `[1, ...]` that it changes."""
        obs = self.observed({port.name: port.zeros() for port in self.ports.values()})
        carry, first = self.model.initial_carry(1), torch.ones(1, dtype=torch.bool)
        with Draws() as draws:
            _, after = self.act(obs, dict(carry), first, explore=False)
        return draws.schedule, {k: v for k, v in after.items() if v is not carry.get(k)}

    def _exported(self) -> ExportedProgram:
        example = {port.name: port.zeros() for port in self.inputs}
        try:
            program = torch.export.export(self, (), example, strict=False)
        except RuntimeError as error:
            raise self._no_graph(f"is no graph of tensors: {error}") from error
        module = program.run_decompositions({}).module(check_guards=False)
        for node in module.graph.nodes:
            if node.target is torch.ops.aten._assert_tensor_metadata.default:
                module.graph.erase_node(node)
            elif node.target is torch.ops.aten.permute.default:
                _make_contiguous(node)
            elif torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                raise self._no_graph(f"draws by {node.target}, which cannot be an input")
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()
        unread = {name for name in _unread(module.graph) if name.startswith("noise_")}
        self.noise = {k: n for k, n in self.noise.items() if f"noise_{k}" not in unread}
        zeros = {name: example.pop(name) for name in unread}
        return torch.export.export(_Given(module, zeros), (), example, strict=False)

    def _no_graph(self, problem: str) -> CapabilityError:
        return CapabilityError(
            f"{type(self.model).__name__} cannot be exported: its policy {problem}"
        )


def _make_contiguous(permuted: Node) -> None:
    """Copy the result: other runtimes lay out the arguments of a permutation in another way."""
    readers = list(permuted.users)
    with permuted.graph.inserting_after(permuted):
        copied = permuted.graph.call_function(
            torch.ops.aten.clone.default, (permuted,), {"memory_format": torch.contiguous_format}
        )
    for reader in readers:
        reader.replace_input_with(permuted, copied)


def _unread(graph: Graph) -> set[str]:
    """Names of the inputs that nothing reads."""
    return {node.name for node in graph.nodes if node.op == "placeholder" and not node.users}


class _Given(nn.Module):
    """A module with some of its arguments."""

    def __init__(self, module: nn.Module, given: dict[str, Tensor]) -> None:
        super().__init__()
        self.module, self.given = module, given

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.module(**self.given, **inputs)
        return outputs


def _observation(name: str) -> str:
    return "observation" + re.sub(r"\W", "_", f"_{name}") if name else "observation"


def _port(name: str, space: spaces.Space) -> Port:
    assert space.dtype is not None
    is_float = space.dtype.kind == "f"
    return Port(name, tuple(space.shape or ()), "float32" if is_float else str(space.dtype))


def _tensor_port(name: str, tensor: Tensor) -> Port:
    return Port(name, tuple(tensor.shape[1:]), str(tensor.dtype).removeprefix("torch."))


def _dtype_of(kind: str) -> str:
    return "int64" if "_" in kind else "float32"
