"""The same seed gives the same weights, whatever runs next to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from projects import fingerprint, finished, run, write_project

PAGE = "\n[visualization]\nenabled = true\nport = {port}\n"


def repeated(folder: Path, family: str, seed: int) -> dict[str, bool]:
    """Runs of one seed: again, with a dashboard, with other hashes, with threads; another seed."""
    plain = _weights(folder / "plain", family, seed)
    port = 18931 + 2 * seed + family.startswith("d")  # one per trial: they run at the same time
    two = [_weights(folder / f"two-{i}", family, seed, threads=2) for i in range(2)]
    manifest = json.loads((folder / "two-0" / "outputs" / "run_manifest.json").read_text())
    return {
        "again": _weights(folder / "again", family, seed) == plain,
        "with a dashboard": _weights(folder / "page", family, seed, PAGE.format(port=port))
        == plain,
        "other hashes": _other_hashes(folder / "hashes", family, seed) == plain,
        "two threads twice": two[0] == two[1] and manifest["threads"] == 2,
        "another seed differs": _weights(folder / "other", family, seed + 1) != plain,
    }


def _weights(root: Path, family: str, seed: int, more: str = "", threads: int = 1) -> str:
    _write(root, family, seed, more)

    def work() -> int:
        torch.set_num_threads(threads)
        return run(root)

    code = finished(work, root / "log.txt")
    assert code == 0, (root / "log.txt").read_text()
    return str(fingerprint(root)["weights"])


def _other_hashes(root: Path, family: str, seed: int) -> str:
    """In its own Python, whose hashes are seeded when it starts."""
    _write(root, family, seed)
    done = subprocess.run(
        [sys.executable, "-m", "worldflux", "train", "--config", str(root)],
        env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (root / "dice.jsonl").touch()
    return str(fingerprint(root)["weights"])


def _write(root: Path, family: str, seed: int, more: str = "") -> None:
    write_project(root, family)
    toml = root / "worldflux.toml"
    toml.write_text(toml.read_text().replace("[training]", f"[training]\nseed = {seed}") + more)
