"""Where golden files are: `--fixtures DIR`, else ../shared/fixtures, else the copies in `data/`.

`recorded/` holds forms that the shared folder lacks, recorded by us from the official code (its
README names commit and machine); they are read whenever no other folder is given.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared" / "fixtures"


def fixtures_root(config: pytest.Config) -> Path:
    given = config.getoption("--fixtures", default=None)
    if given:
        return Path(given).resolve()
    return SHARED if SHARED.is_dir() else HERE / "data"


def family_files(config: pytest.Config, family: str, pattern: str) -> list[Path]:
    """Files of a family: DIR/<family>/<pattern>, or DIR/<pattern> when DIR is one family's."""
    root = fixtures_root(config)
    found = sorted(root.glob(f"{family}/{pattern}")) or sorted(root.glob(pattern))
    if config.getoption("--fixtures", default=None):
        return found
    return found + sorted((HERE / "recorded" / family).glob(pattern))
