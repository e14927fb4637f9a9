"""The built wheel carries the templates; `init` and `update` work from it alone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import worldflux
from worldflux.project.scaffold import templates_in, templates_root

CHECKOUT = Path(worldflux.__file__).parents[1]


def test_init_and_update_work_from_the_wheel(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        str(tmp_path / "dist"),
    ]
    built = subprocess.run(build, cwd=CHECKOUT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert wheel.name.startswith(f"worldflux-{worldflux.__version__}-")
    told = (site / f"worldflux-{worldflux.__version__}.dist-info" / "METADATA").read_text()
    for line in (
        "Author: worldflux contributors",
        "Classifier: Operating System :: POSIX :: Linux",
        "Classifier: Operating System :: MacOS",
    ):
        assert line in told
    assert "](" not in told  # an index page has none of the repository's files to link to
    assert sorted(p.name for p in (site / "worldflux" / "_templates").iterdir()) == sorted(
        templates_in(templates_root()).values()
    )
    assert (site / "worldflux" / "py.typed").is_file()
    # No git either: nothing is on the PATH.
    environ = {**os.environ, "PYTHONPATH": str(site), "PATH": str(tmp_path)}
    for arguments in (["init", "agent", "--yes"], ["update", "agent"]):
        done = subprocess.run(
            [sys.executable, "-m", "worldflux", *arguments],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "agent" / "worldflux.toml").is_file()
    assert done.stdout == f"up to date with worldflux {worldflux.__version__}\n"
