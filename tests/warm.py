"""Python processes that begin with torch and worldflux imported: each is forked from one that is.

A test that starts `python -m worldflux ...` otherwise spends three seconds of a processor on
imports. What depends on a fresh start (start-up time, terminals, signals) starts a real process.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import subprocess
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any


class Warm:
    """Runs `python ARGUMENTS` like `subprocess.run`, in a fork of one warm process."""

    def __init__(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, __file__], text=True, **pipes)

    def run(
        self,
        *arguments: str,
        cwd: Path,
        env: dict[str, str] | None = None,
        timeout: float = 300,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """What the process printed and its exit code; `-m`, `-c`, `-W error` and scripts."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"arguments": arguments, "cwd": str(cwd), "env": env or dict(os.environ)}
        print(json.dumps({**request, "timeout": timeout}), file=self.process.stdin, flush=True)
        code, out, error = json.loads(self.process.stdout.readline())
        done = subprocess.CompletedProcess([sys.executable, *arguments], code, out, error)
        if check:
            done.check_returncode()
        return done

    def close(self) -> None:
        self.process.communicate()


def serve() -> None:
    """Answer one request a line; returns in a child, with its work to do as an exception."""
    import matplotlib.pyplot  # noqa: F401
    import torch

    import worldflux.cli.app
    import worldflux.models.dreamerv3
    import worldflux.models.tdmpc2
    import worldflux.project.recorder
    import worldflux.project.run
    import worldflux.verify.quick
    from worldflux import clock

    torch.set_num_threads(1)
    clock.TIMED_S = 0.0
    worldflux.project.recorder.can_imagine = lambda model: False  # as in conftest.py
    gc.collect()
    gc.freeze()  # a child that ends need not free what it shares
    answers = os.fdopen(os.dup(1), "w")
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        with TemporaryFile("w+") as out, TemporaryFile("w+") as error:
            pid = os.fork()
            if pid == 0:
                answers.close()
                begin(request, (out.fileno(), error.fileno()))
                return
            code = wait(pid, time.monotonic() + request["timeout"])
            texts = [file.read() for file in (out, error) if file.seek(0) == 0]
        print(json.dumps([code, *texts]), file=answers, flush=True)


def wait(pid: int, deadline: float) -> int:
    """The exit code of a child; one that is late is killed."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, 9)
        time.sleep(0.01)


def begin(request: dict[str, Any], files: tuple[int, int]) -> None:
    """Become the process that was asked for, and do its work."""
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), *files)):
        os.dup2(file, number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    kind, *rest = request["arguments"]
    if kind == "-W":
        action, kind, *rest = rest
        warnings.simplefilter(action)
    place = "" if kind.startswith("-") else str(Path(kind).parent.resolve())
    sys.path[:1] = [place, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [kind, *rest] if kind != "-m" else rest
    if kind == "-c":
        text = sys.argv.pop(1)
        exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    serve()
