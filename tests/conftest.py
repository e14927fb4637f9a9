"""Every test runs with one torch thread: two busy threads on two cores help nobody."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
# MKL sums in another order where a processor has AVX-512: an entropy of BMPC's golden numbers, a
# sum of terms of either sign, then ends 1.4e-6 from the recorded one instead of 1e-6.
os.environ.setdefault("MKL_CBWR", "AVX2")
# Hundreds of processes start here; without bytecode each of them would compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest

from worldflux import clock
from worldflux.envs.requirements import choose_renderer

from .warm import Warm

choose_renderer()  # before any test imports dm_control, which reads the choice once
clock.TIMED_S = 0.0  # every run times itself before it starts: here once is enough

# A project that trains for real, in seconds: far too small and short to learn.
TINY_PROJECT = """
project_name = "tiny"
environment = "Pendulum-v1"
model = "tdmpc2:ci"

[architecture]
horizon = 2
num_samples = 16
num_elites = 4
num_pi_trajs = 2
iterations = 2

[training]
total_steps = 20
batch_size = 8
eval_interval = 20
save_interval = 10
log_interval = 5
device = "cpu"

[data]
buffer_capacity = 5000

[online_collection]
warmup_transitions = 30
pretrain = false

[evaluation]
episodes = 2
max_episode_steps = 50

[gameplay]
enabled = false
[verify]
episodes = 4
"""


@pytest.fixture(scope="session", autouse=True)
def undrawn() -> Iterator[None]:
    """Runs in this process draw nothing, which takes longer than all else they do."""

    def blank(rows: object, path: Path, title: str = "") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".svg").touch()
        path.touch()
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worldflux.project.recorder.can_imagine", lambda model: False)
        patch.setattr("worldflux.project.recorder.plot_returns", blank)
        yield


@pytest.fixture(scope="session")
def python() -> Iterator[Warm]:
    """`python.run("-m", "worldflux", "train", cwd=folder)` for a third of what a process costs."""
    warm = Warm()
    yield warm
    warm.close()


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this test draw their return curve and what the model imagines."""
    from worldflux.evaluation.open_loop import can_imagine
    from worldflux.evaluation.plots import plot_returns

    monkeypatch.setattr("worldflux.project.recorder.can_imagine", can_imagine)
    monkeypatch.setattr("worldflux.project.recorder.plot_returns", plot_returns)


@pytest.fixture
def tiny_project(tmp_path: Path) -> Path:
    """A folder with the worldflux.toml of a run that takes seconds."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "worldflux.toml").write_text(TINY_PROJECT)
    return root


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests say that they covered: rows of the contract, docstrings.

    A test that failed covers nothing; what it "counted" stands all the same.
    """
    covered: dict[str, dict[str, int]] = {}
    totals: dict[str, int] = {}
    broken: set[tuple[str, str]] = set()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name not in ("covered", "counted"):
                    continue
                label, part, count, total = value
                covered.setdefault(label, {})[part] = count
                totals[label] = total
                if outcome != "passed" and name == "covered":
                    broken.add((label, part))
    for label, parts in sorted(covered.items()):
        count = sum(n for part, n in parts.items() if (label, part) not in broken)
        terminalreporter.write_line(f"{label}: {count} of {totals[label]} covered")
