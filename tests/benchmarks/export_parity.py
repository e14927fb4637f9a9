"""Exported policies compared with their agents over many states, the page in Chromium too.

    python tests/benchmarks/export_parity.py --states 10000

Trains each agent for a few updates, exports it in every format that takes it, and lets the export
act next to the agent with its memory carried over. Fails where an output differs by more than 1e-5.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldflux import load_agent
from worldflux.export.certificate import export_agent
from worldflux.export.comparison import TOLERANCE
from worldflux.export.policy_graph import PolicyGraph
from worldflux.export.states import environment_of, played

sys.path.insert(0, str(Path(__file__).parents[1] / "dashboard"))

from chromium import start_browser

CHUNK = 500  # states in one call of the browser
SEED = 4_000_000
NUMBERS = ("onnx", "c", "html")


@dataclass(frozen=True)
class Case:
    """An agent to train and the formats that take it."""

    environment: str
    model: str
    updates: int
    formats: tuple[str, ...] = NUMBERS


CASES = (
    Case("Pendulum-v1", "tdmpc2:laptop", 300),
    Case("CartPole-v1", "dreamerv3:laptop", 60),
    Case("dm_control/cartpole-swingup-v0", "tdmpc2:laptop", 100),
    Case("dm_control/cartpole-swingup-v0", "dreamerv3:laptop", 30),
    Case("worldflux/Catch-v0", "dreamerv3:laptop", 6, ("onnx",)),
)
PROJECT = """
project_name = "parity"
environment = "{environment}"
model = "{model}"
[training]
total_steps = {updates}
device = "cpu"
[online_collection]
warmup_transitions = 200
[evaluation]
episodes = 0
[gameplay]
enabled = false
"""


def trained(case: Case, folder: Path) -> Path:
    """The folder of a short run."""
    folder.mkdir(parents=True)
    (folder / "worldflux.toml").write_text(PROJECT.format(**vars(case)))
    command = [sys.executable, "-m", "worldflux", "train", "--yes"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "outputs"


def in_chromium(page: Path, run: Path, states: int, browser: Any) -> float:
    """The largest difference of the page's actions from the agent's, each divided by its size where
    that is above 1."""
    agent = load_agent(run)
    graph = PolicyGraph(agent.model, agent.observation_space, agent.action_space)
    browser.get(page.as_uri())
    browser.execute_script("window.agent = new Agent()")
    worst = 0.0
    for inputs, expected in _chunks(played(agent, graph, environment_of(agent), states, SEED)):
        found = browser.execute_script(
            "return arguments[0].map(([observation, first]) => {"
            "  if (first) agent.reset();"
            "  return [...agent.step(observation)]; })",
            inputs,
        )
        difference = np.abs(np.array(found, np.float64) - expected)
        worst = max(worst, float((difference / np.maximum(1, np.abs(expected))).max()))
    return worst


def _chunks(steps: Iterator[Any]) -> Iterator[tuple[list[Any], np.ndarray]]:
    inputs, actions = [], []
    for given, expected in steps:
        seen = {k: v.astype(float).ravel().tolist() for k, v in given.items() if k != "is_first"}
        inputs.append([seen, bool(given["is_first"])])
        actions.append(np.ravel(expected["action"]).astype(np.float64))
        if len(inputs) == CHUNK:
            yield inputs, np.array(actions)
            inputs, actions = [], []
    if inputs:
        yield inputs, np.array(actions)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=10_000)
    args = parser.parse_args()
    worst = 0.0
    browser = start_browser()
    browser.set_script_timeout(600)
    print(f"| environment | model | export | {args.states:,} states: largest difference |")
    print("|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="export-parity-") as root:
        for number, case in enumerate(CASES):
            run = trained(case, Path(root) / str(number))
            row = f"| `{case.environment}` | `{case.model}` |"
            for kind in case.formats:
                file, certificate = export_agent(str(run), kind, states=args.states)
                found = certificate["largest_difference"]
                rounding = certificate["decided_by_rounding"]["count"]
                print(f"{row} {kind} | {found:.1e}, {rounding} by rounding |", flush=True)
                worst = max(worst, found)
                if kind == "html":
                    found = in_chromium(file, run, args.states, browser)
                    print(f"{row} html in Chromium | {found:.1e} |", flush=True)
                    worst = max(worst, found)
    browser.quit()
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
