"""What a run prints: a header, its phase at every moment, and how it ended."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .terminal import Terminal

Command = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ["--steps", "8", "--set", "training.eval_interval=4", "--set", "training.log_interval=1"]
ENDLESS = ["--steps", "1000000000"]


def test_a_run_without_a_terminal(tiny_project: Path, worldflux: Command) -> None:
    done = worldflux("train", *SMALL, "--output-dir", "my runs/a", cwd=tiny_project)
    assert done.returncode == 0, done.stderr
    folder = tiny_project / "my runs" / "a"
    assert done.stdout == f"{folder}\n"
    manifest = json.loads((folder / "run_manifest.json").read_text())
    lines = done.stderr.splitlines()
    named = dict(line.split("  ", 1) for line in lines if "  " in line.strip())
    assert named["environment"].strip() == "Pendulum-v1"
    assert named["model"].split() == ["tdmpc2:ci,", f"{manifest['parameters']:,}", "parameters"]
    assert named["device"].strip() == "cpu, 1 thread"
    # Told beforehand, and so it came.
    told = f"8 updates, {manifest['env_steps']} environment steps, seed 42"
    assert named["training"].strip() == told
    assert named["folder"].strip() == "'my runs/a'"
    begun = [line.split()[0] for line in lines if not line.startswith(("needs:", " "))]
    assert begun.index("measuring") < begun.index("random") < begun.index("collecting")
    assert begun.index("collecting") < begun.index("evaluating") < begun.index("finished")
    assert "random baseline 0/2 episodes" in lines
    assert any(line.startswith("collecting 0/30 environment steps") for line in lines)
    assert max(map(len, lines)) <= 90
    # The last return is that of the last evaluation, not of the one before.
    evaluated = [line for line in lines if line.startswith("evaluation at update 8 ")]
    assert f"return {manifest['final']['return_mean']:.1f} +-" in evaluated[0]
    assert named["last return"].split() == [f"{manifest['final']['return_mean']:.1f}", "at",
                                            "update", "8"]  # fmt: skip
    assert named["best return"].split()[0] == f"{manifest['best']['return_mean']:.1f}"
    assert named["random policy"].strip() == f"{manifest['random_return_mean']:.1f}"
    commands = [shlex.split(line[line.index("worldflux") :]) for line in lines[-4:]]
    assert [command[1] for command in commands] == ["eval", "verify", "imagine", "dashboard"]
    played = worldflux(*commands[0][1:], "--episodes", "1", cwd=tiny_project)
    assert played.returncode == 0, played.stderr
    assert "evaluating 0/1 episode\n" in played.stderr
    assert "random baseline 0/1 episode\n" in played.stderr
    assert "evaluating" not in played.stdout

    again = worldflux("train", "--resume", "--quiet", "--output-dir", str(folder), cwd=tiny_project)
    assert (again.returncode, again.stderr) == (0, "")


def test_on_a_terminal_one_line_is_redrawn(tiny_project: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tiny_project, "train", *SMALL, COLUMNS="40", NO_COLOR="1")
    terminals.append(terminal)
    code, seen = terminal.finish()
    assert code == 0, seen
    drawn = [part.removesuffix("\x1b[K") for part in seen.split("\r") if part.endswith("\x1b[K")]
    assert max(map(len, drawn)) < 40
    shown = {part.split()[0] for part in drawn if part}
    assert shown >= {"starting", "random", "measuring", "collecting", "training", "evaluating"}
    assert "\x1b[3" not in seen  # no colour
    assert "finished       8 updates" in seen


@pytest.mark.parametrize("phase", ["starting", "evaluating"])
def test_ctrl_c_is_answered_before_training_and_in_it(
    phase: str, tiny_project: Path, terminals: list[Terminal]
) -> None:
    longer = ["--yes", "--set", "evaluation.episodes=40", "--set", "training.eval_interval=1"]
    terminal = Terminal(tiny_project, "train", *ENDLESS, *longer)
    terminals.append(terminal)
    if phase == "evaluating":
        terminal.wait_for("warning: this run takes about")  # and --yes leaves it at that
    terminal.wait_for(phase)
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.wait_for("stopping:" if phase == "evaluating" else "interrupted")
    code, seen = terminal.finish()
    assert code == 130, seen
    assert "Traceback" not in seen
    saved = (tiny_project / "outputs" / "run_manifest.json").exists()
    assert saved == (phase == "evaluating")


def test_a_run_of_years_is_asked_about_where_somebody_can_answer(
    tiny_project: Path, terminals: list[Terminal]
) -> None:
    terminal = Terminal(tiny_project, "train", *ENDLESS)
    terminals.append(terminal)
    terminal.wait_for("warning: this run takes about")
    terminal.answer("start it? [y/N]", "n\n")
    code, seen = terminal.finish()
    assert code == 1
    assert "not started" in seen
    assert not (tiny_project / "outputs").exists()
