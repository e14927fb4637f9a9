"""Start-up times of the commands that need no torch: median of several fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 7


def median_s(arguments: list[str], folder: Path) -> float:
    times = []
    for index in range(RUNS):
        command = [sys.executable, "-m", "worldflux"]
        command += [argument.format(index=index) for argument in arguments]
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    commands = {
        "worldflux --help": ["--help"],
        "worldflux init --yes": ["init", "project-{index}", "--yes"],
        "worldflux models list": ["models", "list"],
    }
    with tempfile.TemporaryDirectory() as folder:
        for label, arguments in commands.items():
            print(f"{label:<24} {median_s(arguments, Path(folder)):.2f} s  (median of {RUNS})")


if __name__ == "__main__":
    main()
