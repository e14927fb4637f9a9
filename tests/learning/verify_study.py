"""What `worldflux verify` tells apart: trained, untrained and tampered Pendulum runs, counted.

    make verify-study    (twenty seeds, two at a time; hours on two cores)

Each seed is the project that `worldflux init --yes` writes, trained once. Of it, copies: untrained
(a fresh model), a reward head that is off by one unit of symlog space, one trained on shuffled
actions, one whose weight file has a flipped bit, one whose manifest claims another environment.
No untrained or tampered run may pass, and at least 19 of 20 trained ones must.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KINDS = ("trained", "untrained", "biased reward", "shuffled actions", "flipped bit", "other claim")
HERE = Path(__file__).parent


def worldflux(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worldflux", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def passes(folder: Path) -> tuple[bool, list[str]]:
    done = worldflux(folder, "verify", "--json")
    if done.returncode not in (0, 3):
        raise SystemExit(f"verify failed in {folder}:\n{done.stderr}")
    verdict = json.loads(done.stdout)
    return verdict["verdict"] == "pass", [
        check["name"] for check in verdict["checks"] if check["status"] == "fail"
    ]


def study(root: Path, seed: int) -> dict[str, tuple[bool, list[str]]]:
    """One seed: train twice (once on shuffled actions), tamper with copies, verify all."""
    name = f"seed-{seed}"
    worldflux(root, "init", name, "--yes")
    for project, shuffled in ((root / name, False), (root / f"{name}-shuffled", True)):
        if shuffled:
            worldflux(root, "init", project.name, "--yes")
        command = [sys.executable, str(HERE / "tampering.py"), "train", str(project), str(seed)]
        subprocess.run([*command, *(["shuffled"] if shuffled else [])], check=True)
    found = {"trained": passes(root / name), "shuffled actions": passes(root / f"{name}-shuffled")}
    for kind in ("untrained", "biased reward", "flipped bit", "other claim"):
        copy = root / f"{name}-{kind.replace(' ', '-')}"
        shutil.copytree(root / name, copy)
        command = [sys.executable, str(HERE / "tampering.py"), kind, str(copy / "outputs")]
        subprocess.run(command, check=True)
        found[kind] = passes(copy)
    for kind in KINDS:
        passed, failed = found[kind]
        print(f"| {seed} | {kind} | {'pass' if passed else 'fail: ' + ', '.join(failed)} |")
    sys.stdout.flush()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    print("| seed | run | verify |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda seed: study(Path(folder), seed), range(options.seeds)))
    counts = {kind: sum(row[kind][0] for row in rows) for kind in KINDS}
    print("\n" + "; ".join(f"{kind}: {n} of {len(rows)} pass" for kind, n in counts.items()))
    trained = counts.pop("trained")
    if trained < 0.95 * len(rows) or any(counts.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
