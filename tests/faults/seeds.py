"""The same seed gives the same weights, whatever stands beside the run."""

from __future__ import annotations

import os
from pathlib import Path

from projects import fingerprint, finished, run, write_project


def repeated(folder: Path, family: str, seed: int) -> dict[str, bool]:
    """Runs of one seed: plain, again, with a dashboard, with other hashes; and another seed."""
    plain = _weights(folder / "plain", family, seed)
    page = "\n[visualization]\nenabled = true\nport = 18931\n"
    os.environ["PYTHONHASHSEED"] = "7"
    try:
        return {
            "again": _weights(folder / "again", family, seed) == plain,
            "with a dashboard": _weights(folder / "page", family, seed, page) == plain,
            "another seed differs": _weights(folder / "other", family, seed + 1) != plain,
        }
    finally:
        del os.environ["PYTHONHASHSEED"]


def _weights(root: Path, family: str, seed: int, more: str = "") -> str:
    write_project(root, family)
    toml = root / "worldflux.toml"
    toml.write_text(toml.read_text().replace("[training]", f"[training]\nseed = {seed}") + more)
    code = finished(lambda: run(root), root / "log.txt")
    assert code == 0, (root / "log.txt").read_text()
    return str(fingerprint(root)["weights"])
