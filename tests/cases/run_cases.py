"""Runs folders of small inputs that strangers brought, and checks what worldflux says to each.

    python tests/cases/run_cases.py DIR [--only NAME ...] [--jobs N]

Every folder of DIR with a run.sh is run as it is, with WF naming the folder of this Python's
programs. expected.toml says what its output must hold (`must`) and must not (`never`), as regular
expressions, and `count` how often. A folder that expected.toml does not know fails.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

EXPECTED = Path(__file__).with_name("expected.toml")
NEVER = (r"This is a defect in worldflux", r"Traceback \(most recent call last\)")
LIMIT_S = 900


def output_of(folder: Path) -> str:
    """Everything that the folder's run.sh prints, until its end or the limit."""
    variables = {**os.environ, "WF": str(Path(sys.executable).parent), "OMP_NUM_THREADS": "1"}
    variables["PATH"] = f"{variables['WF']}:{variables['PATH']}"
    try:
        done = subprocess.run(
            ["bash", str(folder / "run.sh")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=variables,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        return f"{(error.output or b'').decode('utf-8', 'replace')}\n[no end in {LIMIT_S} s]"
    return done.stdout.decode("utf-8", "replace")


def faults(text: str, expected: dict[str, Any]) -> list[str]:
    """What an output lacks or should not hold, in words."""
    missing = [f"lacks {p!r}" for p in expected["must"] if not re.search(p, text, re.M)]
    never = [*(() if expected.get("tracebacks") else NEVER), *expected.get("never", ())]
    wrong = [f"holds {p!r}" for p in never if re.search(p, text, re.M)]
    counts = [
        f"has {found} of {pattern!r}, expected {wanted}"
        for pattern, wanted in expected.get("count", {}).items()
        if (found := len(re.findall(pattern, text, re.M))) != wanted
    ]
    return missing + wrong + counts


_AsWritten = argparse.RawTextHelpFormatter


def main() -> int:
    """Run, print a line for each folder; 1 where one is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsWritten)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="beginnings of the folders' names")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print every output")
    asked = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup children would ignore it too
    expected = tomllib.loads(EXPECTED.read_text(encoding="utf-8"))
    folders = [path.parent for path in sorted(asked.folder.glob("*/run.sh"))]
    if asked.only:
        folders = [one for one in folders if one.name.startswith(tuple(asked.only))]
    if not folders:
        parser.error(f"{asked.folder} holds no folder with a run.sh")

    def run(folder: Path) -> bool:
        began = time.monotonic()
        text = output_of(folder)
        rules = expected.get(folder.name)
        told = ["expected.toml does not know it"] if rules is None else faults(text, rules)
        lines = [f"{'FAIL' if told else 'pass'} {folder.name} ({time.monotonic() - began:.0f} s)"]
        lines += [f"     {fault}" for fault in told]
        if told or asked.show:
            lines += [f"     | {line}" for line in text.splitlines()[-60:]]
        print("\n".join(lines), flush=True)
        return not told

    with ThreadPoolExecutor(asked.jobs) as pool:
        good = list(pool.map(run, folders))
    print(f"{sum(good)} passed, {len(good) - sum(good)} failed")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
