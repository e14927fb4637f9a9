"""Two "hosts", network namespaces of this machine, train one run; one is killed and started again.

    two_hosts.py        as root: `ip netns` has to be allowed; otherwise it says why it is skipped

torchrun on each host meets the other over TCP, and is started again until it exits with 0, as a
supervisor of services does. The run must end as one process alone ends.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shards import Reference, fingerprint, write_sharded

HOSTS = {"wf-one": "10.77.0.1", "wf-two": "10.77.0.2"}
PORT = 29400
WAIT_S = 900
started: list[subprocess.Popen[bytes]] = []


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def connect() -> str | None:
    """Make the namespaces and a cable between them; why that is not possible, if it is not."""
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        one, two = HOSTS
        ip("link", "add", "wf0", "netns", one, "type", "veth", "peer", "name", "wf0", "netns", two)
        for host, address in HOSTS.items():
            inside = ("-n", host)
            ip(*inside, "addr", "add", f"{address}/24", "dev", "wf0")
            ip(*inside, "link", "set", "wf0", "up")
            ip(*inside, "link", "set", "lo", "up")
    except FileNotFoundError:
        return "there is no ip command"
    except subprocess.CalledProcessError as error:
        return error.stderr.strip()
    return None


def start(host: str, root: Path) -> subprocess.Popen[bytes]:
    """torchrun with one process on a host, again and again until the run is complete."""
    words = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(list(HOSTS).index(host))]
    words += ["--master-addr", HOSTS["wf-one"], "--master-port", str(PORT), "-m", "worldflux"]
    words += ["train", "--config", str(root), "--resume=auto", "--yes"]
    inside = ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run", *words]
    return subprocess.Popen(
        ["bash", "-c", f"until {shlex.join(inside)}; do sleep 1; done"],
        env={**os.environ, "GLOO_SOCKET_IFNAME": "wf0"},
        stdout=(root / f"{host}.txt").open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill_all(host: str) -> None:
    """SIGKILL to every process of a host, the loop around torchrun first."""
    for process in started:
        if process.poll() is None and host in process.args[-1]:  # type: ignore[index]
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = subprocess.run(
        ["ip", "netns", "pids", host], capture_output=True, text=True, check=True
    )
    for pid in found.stdout.split():
        os.kill(int(pid), signal.SIGKILL)


def wait_for(root: Path) -> None:
    """Until the first checkpoint was written."""
    end = time.monotonic() + WAIT_S
    while not (root / "outputs" / "checkpoints" / "step-000000004").exists():
        assert time.monotonic() < end, logs(root)
        time.sleep(0.2)


def logs(root: Path) -> str:
    return "\n".join((root / f"{host}.txt").read_text()[-3000:] for host in HOSTS)


def main() -> int:
    why = connect()
    try:
        if why is not None:
            print(f"skipped: {why}")
            return 0
        with tempfile.TemporaryDirectory() as place:
            reference = Reference(Path(place), "tdmpc2", 2)
            root = write_sharded(Path(place) / "two", "tdmpc2", 2)
            started.extend(start(host, root) for host in HOSTS)
            wait_for(root)
            kill_all("wf-two")
            print("host 2 killed after its first checkpoint", flush=True)
            time.sleep(3)
            started.append(start("wf-two", root))
            codes = [process.wait(timeout=WAIT_S) for process in (started[0], started[2])]
            same = not any(codes) and fingerprint(root) == reference.fingerprint
            manifest = json.loads((root / "outputs" / "run_manifest.json").read_text())
            print(f"exit codes {codes}, sessions {len(manifest['sessions'])}, same end: {same}")
            if not same:
                print(logs(root))
            return int(not same)
    finally:
        for host in HOSTS if why is None else ():
            kill_all(host)
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
