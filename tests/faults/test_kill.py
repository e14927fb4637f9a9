"""SIGKILL at random moments: a loadable checkpoint and a valid manifest stand, and resume goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROJECT = """
project_name = "killed"
environment = "Pendulum-v1"
model = "tdmpc2:ci"

[architecture]
horizon = 2
num_samples = 16
num_elites = 4
num_pi_trajs = 2
iterations = 2

[training]
batch_size = 8
eval_interval = 100000
save_interval = 5
log_interval = 5
device = "cpu"

[data]
buffer_capacity = 5000

[online_collection]
warmup_transitions = 30
pretrain = false

[evaluation]
episodes = 1

[gameplay]
enabled = false
"""


def test_twenty_kills_lose_no_finished_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "worldflux.toml").write_text(PROJECT)
    driver = Path(__file__).parent / "kill_driver.py"
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), "20", "7"],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    steps = [0]
    for kill in report["kills"]:
        assert kill["checkpoint"] is not None, kill
        assert kill["damaged"] == [], kill
        assert kill["status"] == "running", kill
        steps.append(int(kill["checkpoint"].removeprefix("step-")))
    assert steps == sorted(steps)  # no finished checkpoint was ever lost
    assert sum(kill["killed"] for kill in report["kills"]) == 20
    assert report["last"] == {"exit": 0, "status": "completed", "further": 10}
    assert list((tmp_path / "outputs" / "checkpoints").glob(".tmp-*")) == []
