"""What `worldflux verify` distinguishes: trained, untrained and tampered Pendulum runs, counted.

    make verify-study    (twenty seeds, two at a time; an hour or more on two cores)

Each seed is the project that `worldflux init --yes` writes, trained once. Of it, copies: untrained
(a fresh model), a reward head that is off by one unit of symlog space, one whose weight file has a
flipped bit, one whose manifest claims another environment; and a project trained on shuffled
actions, for fewer updates, because those it gets teach it nothing more. No untrained or tampered
run may pass, and at least 19 of 20 trained ones must.

A seed's rows are kept in `--keep DIR` as soon as it is done, and a seed whose rows are there is not
repeated: an interrupted study continues where it was. The folders of a seed that came out as
expected are removed, those of another stay in DIR.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SPOILED = ("untrained", "biased reward", "flipped bit", "other claim")
KINDS = ("trained", "shuffled actions", *SPOILED)
# Updates of the run on shuffled actions: past the 2,500 that the project makes before it acts.
SHUFFLED_UPDATES = 3000
HERE = Path(__file__).parent
Row = dict[str, Any]


def run(folder: Path, *command: str, allowed: tuple[int, ...] = (0,)) -> str:
    """Output of a Python program; the study ends, with its words, where it should not fail."""
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode not in allowed:
        raise RuntimeError(f"{' '.join(command)} failed in {folder}:\n{done.stderr}")
    return done.stdout


def verified(folder: Path) -> Row:
    """The verdict over a project's run: whether it passes, what failed, and its cost."""
    began = time.monotonic()
    verdict = json.loads(run(folder, "-m", "worldflux", "verify", "--json", allowed=(0, 3)))
    failed = [check["name"] for check in verdict["checks"] if check["status"] == "fail"]
    seconds = time.monotonic() - began
    print(f"{folder.name}: {verdict['verdict']}, {seconds:.0f} s", file=sys.stderr, flush=True)
    return {"passes": verdict["verdict"] == "pass", "failed": failed, "verify_s": seconds}


def trained(project: Path, seed: int, *settings: str) -> float:
    """Train a new project; returns the seconds that it took."""
    began = time.monotonic()
    run(project.parent, "-m", "worldflux", "init", project.name, "--yes")
    run(project, str(HERE / "tampering.py"), "train", str(project), str(seed), *settings)
    seconds = time.monotonic() - began
    print(f"{project.name}: trained, {seconds:.0f} s", file=sys.stderr, flush=True)
    return seconds


def study(root: Path, seed: int) -> dict[str, Row]:
    """One seed: train twice (once on shuffled actions), tamper with copies, verify all."""
    name = f"seed-{seed}"
    for folder in root.glob(f"{name}*"):  # of a study that was broken off
        shutil.rmtree(folder)
    whole, shuffled = root / name, root / f"{name}-shuffled-actions"
    costs = {"trained": trained(whole, seed)}
    costs["shuffled actions"] = trained(shuffled, seed, str(SHUFFLED_UPDATES))
    found = {"trained": verified(whole), "shuffled actions": verified(shuffled)}
    for kind in SPOILED:
        copy = root / f"{name}-{kind.replace(' ', '-')}"
        shutil.copytree(whole, copy, ignore=shutil.ignore_patterns("replay", "gameplay", "videos"))
        run(root, str(HERE / "tampering.py"), kind, str(copy / "outputs"))
        found[kind] = verified(copy)
    rows = {kind: {**found[kind], "train_s": costs.get(kind)} for kind in KINDS}
    if all(row["passes"] == (kind == "trained") for kind, row in rows.items()):
        for folder in root.glob(f"{name}*"):
            shutil.rmtree(folder)
    return rows


def rows_of(keep: Path, seed: int) -> dict[str, Row]:
    """The rows of a seed: kept ones, or new ones, which are kept."""
    file = keep / f"rows-{seed}.json"
    if file.is_file():
        rows: dict[str, Row] = json.loads(file.read_text())
    else:
        rows = study(keep, seed)
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps(rows, indent=2))
        aside.replace(file)
    lines = [
        f"| {seed} | {kind} | {'pass' if row['passes'] else 'fail: ' + ', '.join(row['failed'])} | "
        f"{'' if row['train_s'] is None else round(row['train_s'])} | {row['verify_s']:.0f} |"
        for kind, row in rows.items()
    ]
    print("\n".join(lines), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("verify-study"))
    options = parser.parse_args()
    keep = options.keep.absolute()
    keep.mkdir(parents=True, exist_ok=True)
    print("| seed | run | verify | train s | verify s |\n|---|---|---|---|---|", flush=True)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    with ThreadPoolExecutor(options.jobs) as pool:
        studies = [pool.submit(rows_of, keep, seed) for seed in seeds]
    broken = [study.exception() for study in studies if study.exception() is not None]
    for error in broken:  # a seed that broke does not take the others with it
        print(error, file=sys.stderr)
    rows = [study.result() for study in studies if study.exception() is None]
    counts = {kind: sum(row[kind]["passes"] for row in rows) for kind in KINDS}
    print("\n" + "; ".join(f"{kind}: {n} of {len(rows)} pass" for kind, n in counts.items()))
    passed = counts.pop("trained")
    if broken or passed < 0.95 * len(rows) or any(counts.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
