"""Stands in for danijar/dreamerv3: its flags, its two score files, its terminal output; no agent.

`--fake.crash 1` fails at once, `--fake.sleep S` stays S seconds after the last row.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

flags, name = {}, ""
for word in sys.argv[1:]:
    if word.startswith("--"):
        name = word[2:]
        flags[name] = []
    else:
        flags[name].append(word)
logdir = Path(flags["logdir"][0])
if "fake.crash" in flags:
    print("Traceback (most recent call last):\nModuleNotFoundError: No module named 'jax'")
    print("-" * 20 + "\nFor simplicity, JAX has removed its internal frames from the traceback.")
    sys.exit(1)
logdir.mkdir(exist_ok=True)
print("Replica: 0 / 1")
print("Logdir:", logdir)
print("Run script: train")
(logdir / "config.yaml").write_text(json.dumps(flags))
print("Optimizer opt has 17,137 params:\n         9,255 dec\n         6,232 enc", flush=True)
steps = int(flags.get("run.steps", ["400"])[0])
for step in range(100, steps + 1, 100):
    score = step / 4
    with (logdir / "metrics.jsonl").open("a") as file:
        row = {"step": step, "episode/score": score, "episode/length": 100.0}
        file.write(json.dumps(row) + "\n")
        losses = {"train/loss/dyn": 1.5, "train/loss/rew": float("nan"), "fps/train": 12.0}
        file.write(json.dumps({"step": step + 1, **losses}) + "\n")
    with (logdir / "scores.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "episode/score": score}) + "\n")
    print(f"\n{'-' * 20}[Agent Step {step:_}]{'-' * 20}\nepisode/score {score}\n", flush=True)
    if "fake.fill" in flags:
        (logdir / f"chunk-{step}").write_bytes(b"\0" * (1 << 20))
if "fake.sleep" in flags:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (logdir / "child").write_text(f"{child.pid} {os.getpid()}")
    time.sleep(float(flags["fake.sleep"][0]))
