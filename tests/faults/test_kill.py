"""SIGKILL at random moments: a valid checkpoint and manifest stand, and resume goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_twenty_kills_lose_no_finished_checkpoint(tiny_project: Path) -> None:
    driver = Path(__file__).parent / "kill_driver.py"
    done = subprocess.run(
        [sys.executable, str(driver), str(tiny_project), "20", "7"],
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
    assert list((tiny_project / "outputs" / "checkpoints").glob(".tmp-*")) == []
