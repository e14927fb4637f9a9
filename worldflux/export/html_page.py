"""A policy and its world model as one self-contained HTML page, and the script of such a page run
by node.

A dream is two pure functions of tensors: how it begins from what the agent knows, and one step.
Both give the model's state "next_NAME", its predictions "predicted_NAME" (see `WorldModel.decode`)
and "row", the policy's action there in the model's own form `[A]`. There is no batch axis.
"""

from __future__ import annotations

import base64
import html
import json
import subprocess
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from math import prod
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.export import ExportedProgram

from worldflux.acting.agent import Agent
from worldflux.core.state import State
from worldflux.core.world_model import WorldModel
from worldflux.envs.actions import action_layout, action_rows
from worldflux.envs.faults import begun, close_environment, stepped
from worldflux.envs.spaces import leaf_values
from worldflux.errors import ExportError
from worldflux.files import finite

from .aten import policy_program, translate
from .flat_program import FlatProgram
from .policy_graph import PolicyGraph
from .source import JAVASCRIPT, statements
from .states import environment_of


class DreamBegins(nn.Module):
    """Takes the observation as `PolicyGraph.forward` does, and "memory_NAME" that acting left."""

    def __init__(self, graph: PolicyGraph) -> None:
        super().__init__()
        self.acting = graph
        self.example = {
            port.name: port.zeros() for port in graph.inputs if not port.name.startswith("noise_")
        }

    def state(self, inputs: dict[str, Tensor]) -> State:
        graph = self.acting
        memory = {name: inputs[f"memory_{name}"].unsqueeze(0) for name in graph.memory}
        carry = {**graph.model.initial_carry(1), **memory}
        return graph.model.acting_state(graph.observed(inputs), carry)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        state = self.state(inputs)
        return _seen(self.acting.model, state, state.tensors)


class DreamStep(nn.Module):
    """Takes the state "state_NAME" and the action "state_row" that the model is to expect."""

    def __init__(self, begins: DreamBegins) -> None:
        super().__init__()
        self.model = begins.acting.model
        with torch.no_grad():
            self.names = tuple(begins.state(begins.example).tensors)
            seen = begins(**begins.example)
        self.example = {f"state_{name}": seen[f"next_{name}"] for name in self.names}
        self.example["state_row"] = seen["next_row"]

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        state = State({name: inputs[f"state_{name}"].unsqueeze(0) for name in self.names})
        following = self.model.transition(
            state, inputs["state_row"].unsqueeze(0), deterministic=True
        )
        return _seen(self.model, following, self.names)


def exported(module: DreamBegins | DreamStep) -> ExportedProgram:
    """The function as an ATen graph."""
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch's own
        return torch.export.export(module, (), module.example, strict=False)


def _seen(model: WorldModel, state: State, names: Iterable[str]) -> dict[str, Tensor]:
    predictions = model.decode(state).predictions
    return {
        **{f"next_{name}": state[name][0] for name in names},
        **{f"predicted_{name}": value[0] for name, value in predictions.items()},
        "next_row": model.imagined_action(state)[0],
    }


SEED = 4_500_000  # of the episode; the states of the certificate have others
LONGEST = 500


@dataclass(frozen=True)
class Episode:
    """T steps.

    Attributes:
        observations: `[T, ...]` of each input "observation..." of the policy.
        rows: the actions in the model's own form `[T, A]`.
        rewards: `[T]`, each received with the observation of its step; the first is NaN.
    """

    observations: Mapping[str, np.ndarray]
    rows: np.ndarray
    rewards: np.ndarray


def recorded_episode(agent: Agent, graph: PolicyGraph, policy: str) -> Episode:
    """The agent in its environment, at most `LONGEST` steps.

    An agent that came without an environment sees random observations, and no rewards.
    """
    observations: list[Any] = []
    actions: list[Any] = []
    rewards: list[float] = []
    agent.reset()
    env = environment_of(agent)
    space = agent.observation_space
    if env is None:
        space.seed(SEED)
        observation = space.sample()
    else:
        observation = begun(env, SEED)
    reward: Any = np.nan
    ended = False
    while not ended and len(actions) < LONGEST:
        observations.append(observation)
        rewards.append(float(reward))
        actions.append(agent.act(observation, policy=policy))
        if env is None:
            observation = space.sample()
        else:
            observation, reward, terminated, truncated = stepped(env, actions[-1])
            ended = terminated or truncated
    if env is not None:
        close_environment(agent.adapter.name, env)
    columns: dict[str, list[Any]] = {port.name: [] for port in graph.ports.values()}
    for value in observations:
        for name, part in leaf_values(space, value):
            columns[graph.ports[name].name].append(part)
    return Episode(
        {name: np.asarray(values) for name, values in columns.items()},
        action_rows(agent.action_space, np.asarray(actions)),
        np.asarray(rewards),
    )


if TYPE_CHECKING:
    from .formats import Runner

RUNTIME = '<script id="runtime">'
SHOWN = ("environment", "model", "policy", "checkpoint", "weights_sha256", "worldflux")
ANSWERING = """
const lines = require("readline").createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const found = Object.entries(computed(NETWORKS.act, JSON.parse(line)));
  console.log(JSON.stringify(Object.fromEntries(found.map(([name, array]) => [name, [...array]]))));
});
"""


def write_html(graph: PolicyGraph, path: Path, facts: dict[str, str], agent: Agent) -> None:
    """The page of a policy and its world model, with an episode of the agent.

    Raises:
        CapabilityError: when the policy or the model has no translation to JavaScript.
    """
    constants: dict[bytes, str] = {}
    networks = {"act": policy_program(graph, "HTML", constants)}
    begins = DreamBegins(graph)
    for name, module in (("begin", begins), ("imagine", DreamStep(begins))):
        networks[name] = translate(exported(module), "HTML", constants)
    observed = {graph.ports[name].name: leaf for name, leaf in graph.leaves.items()}
    episode = recorded_episode(agent, graph, facts["policy"])
    page = html_page(facts, networks, observed, agent.action_space, episode)
    path.write_text(page, encoding="utf-8")


@contextmanager
def open_html(path: Path, graph: PolicyGraph) -> Iterator[Runner]:
    """The script of a page, in node.

    Raises:
        ExportError: when node does not run it.
    """
    _, _, rest = path.read_text(encoding="utf-8").partition(RUNTIME)
    script, _, _ = rest.partition("</script>")
    names = [port.name for port in graph.outputs]
    shapes = {port.name: port.shape for port in graph.outputs}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "policy.js"
        file.write_text(script + ANSWERING, encoding="utf-8")
        with subprocess.Popen(
            ["node", file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as node:
            lines, answers = node.stdin, node.stdout
            assert lines is not None
            assert answers is not None

            def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
                numbers = {
                    name: np.ravel(value).astype(np.float32).tolist()
                    for name, value in inputs.items()
                }
                try:
                    print(json.dumps(numbers), file=lines, flush=True)
                except BrokenPipeError:
                    raise ExportError("node does not run the page", where=str(path)) from None
                answer = answers.readline()
                if not answer:
                    raise ExportError("node does not run the page", where=str(path))
                found = json.loads(answer)
                return {
                    name: np.asarray(found[name], np.float32).reshape(shapes[name])
                    for name in names
                }

            yield run
            lines.close()


def runtime(networks: Mapping[str, FlatProgram]) -> str:
    """JavaScript of the networks "act", "begin" and "imagine", and of what runs them.

    The programs share their constants.
    """
    constants = {name: v for program in networks.values() for name, v in program.constants.items()}
    values = np.concatenate([np.zeros(0), *constants.values()]).astype("<f4")
    lines = [f'const weights = numbers("{base64.b64encode(values.tobytes()).decode()}");']
    start = 0
    for name, constant in constants.items():
        lines.append(f"const {name} = weights.subarray({start}, {start + len(constant)});")
        start += len(constant)
    for name, program in networks.items():
        lines += [f"const {name} = (() => {{", *_network(program), "})();"]
    lines.append(f"return {{ {', '.join(networks)} }};")
    text = _file("runtime.js")
    return Template(text).substitute(networks="\n".join("  " + line for line in lines))


def _network(program: FlatProgram) -> Iterator[str]:
    for name, size in program.sizes.items():
        yield f"  const {name} = new Float32Array({size});"
    sizes = {
        kind: ", ".join(f"{name}: {prod(shape)}" for name, shape in ports.items())
        for kind, ports in (("inputs", program.inputs), ("outputs", program.outputs))
    }
    yield f"  const inputs = {{ {sizes['inputs']} }};"
    yield f"  const outputs = {{ {sizes['outputs']} }};"
    arguments = f"{{ {', '.join(program.inputs)} }}, {{ {', '.join(program.outputs)} }}"
    yield f"  function run({arguments}) {{"
    yield from ("    " + line for line in statements(program, JAVASCRIPT))
    yield "  }"
    yield "  return { inputs, outputs, run };"


def html_page(
    facts: Mapping[str, str],
    networks: Mapping[str, FlatProgram],
    observation_spaces: Mapping[str, spaces.Space],
    action_space: spaces.Space,
    episode: Episode,
) -> str:
    """The page as text.

    Args:
        facts: what the page says about the export.
        observation_spaces: of each input "observation..." of the policy.
    """
    begun = networks["begin"].outputs
    channels = list(_channels(observation_spaces, begun))
    data = {
        "facts": [[name, facts[name]] for name in SHOWN],
        "channels": channels,
        "decodes": any(channel["predicted"] for channel in channels),
        "action": _action(action_space),
        "episode": {
            "observations": {
                name: _rounded(values.reshape(len(values), -1))
                for name, values in episode.observations.items()
            },
            "rows": _rounded(episode.rows),
            "rewards": _rounded(episode.rewards),
        },
    }
    title = f"{facts['environment']}, {facts['model']}"
    return Template(_file("page.html")).substitute(
        title=html.escape(title),
        style=_file("page.css"),
        numbers=", ".join("0" for _ in channels) if len(observation_spaces) == 1 else "...",
        data=json.dumps(data).replace("<", "\\u003c"),
        runtime=runtime(networks),
        page=_file("page.js"),
    )


def _channels(
    observed: Mapping[str, spaces.Space], predictions: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, Any]]:
    """Each number of an observation: where it goes in, its label, and its prediction if any."""
    for name, space in observed.items():
        size = int(np.prod(space.shape or (), dtype=int))
        part = name.removeprefix("observation").removeprefix("_")
        predicted = f"predicted_{part or 'obs'}"
        known = isinstance(space, spaces.Box) and prod(predictions.get(predicted, (0,))) == size
        for index in range(size):
            label = f"{part or 'observation'} {index}" if size > 1 else part or "observation"
            yield {
                "input": name,
                "index": index,
                "label": label,
                "predicted": predicted if known else None,
            }


def _action(space: spaces.Space) -> dict[str, Any]:
    """The columns of the model's rows, and the bounds (or first choices) of the actions."""
    layout = action_layout("the environment", space)
    low = space.low if isinstance(space, spaces.Box) else getattr(space, "start", 0)
    high = space.high if isinstance(space, spaces.Box) else 0
    parts = len(layout.widths) if layout.discrete else layout.widths[0]
    bounds = {"low": low, "high": high}
    return {
        "discrete": layout.discrete,
        "widths": layout.widths,
        **{name: np.broadcast_to(np.ravel(v), (parts,)).tolist() for name, v in bounds.items()},
    }


def _rounded(values: np.ndarray) -> list[Any]:
    """As short as float32 reads back exactly."""
    if values.ndim > 1:
        return [_rounded(row) for row in values]
    return [finite(float(f"{value:.9g}")) for value in values.astype(np.float32)]


def _file(name: str) -> str:
    return (resources.files("worldflux.export") / "page" / name).read_text(encoding="utf-8")
