"""Stands in for nicklashansen/tdmpc2: its flags, eval.csv, work folder and console lines."""

import sys
import time
from pathlib import Path

cfg = dict(word.split("=", 1) for word in sys.argv[1:])
if "fake" in cfg:  # hydra's own way to end
    print("Error executing job with overrides: []\nTraceback (most recent call last):")
    print("    assert torch.cuda.is_available()\nAssertionError\n")
    print("Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.")
    sys.exit(1)
work = Path.cwd() / "logs" / cfg["task"] / cfg["seed"] / cfg["exp_name"]
work.mkdir(parents=True)
print("\x1b[1m\x1b[33mWork dir:\x1b[0m", work)
print("Learnable parameters: 1,197,745")
rows = []
for step in range(0, int(cfg.get("steps", "1500")) + 1, 500):
    reward = 10.0 + step / 10
    rows.append((step, reward))
    lines = ["step,episode_reward", *(f"{s}.0,{r}" for s, r in rows)]
    (work / "eval.csv").write_text("\n".join(lines) + "\n")
    shown = f"E: 0                 I: {step:,}   R: {reward:.01f}   T: 0:00:01"
    print(f" \x1b[32meval\x1b[0m          {shown}")
    if step:
        shown = f"\x1b[34mI:\x1b[0m {step:,}         \x1b[34mR:\x1b[0m {reward / 2:.01f}"
        print(f" \x1b[34mtrain\x1b[0m         E: 1           {shown}", flush=True)
    time.sleep(0.05)
print("\nTraining completed successfully")
