"""Files that were changed at random, each through its public door: accepted, or refused by name."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

from projects import copied, finished, rehash, run, write_project
from saves import noise, small_trainer

from worldflux.errors import ConfigurationError, WorldFluxError
from worldflux.project.loader import load_project

# ------------------------------------------------------------------ project files


def mutated_tomls(folder: Path, count: int, seed: int = 0) -> dict[str, int]:
    """Project files with pieces cut, doubled, swapped and bytes changed: configuration errors."""
    rng = random.Random(seed)
    base = (Path(__file__).parents[1] / "conftest.py").read_text().split('"""')[3].encode()
    root = folder / "toml"
    root.mkdir()
    refused = accepted = 0
    slowest = 0.0
    for _ in range(count):
        (root / "worldflux.toml").write_bytes(_mutated(base, rng))
        began = time.monotonic()
        try:
            load_project(root)
            accepted += 1
        except ConfigurationError:
            refused += 1
        slowest = max(slowest, time.monotonic() - began)
    return {"texts": count, "refused": refused, "accepted": accepted, "slowest_ms": _ms(slowest)}


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def _mutated(text: bytes, rng: random.Random) -> bytes:
    data = bytearray(text)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        kind = rng.randrange(6)
        if kind == 0:
            del data[a : min(b, a + 30)]
        elif kind == 1:
            data[a:a] = data[a:b][:60]
        elif kind == 2 and a < len(data):
            data[a] = rng.randrange(256)
        elif kind == 3:
            data[a:a] = rng.choice(_SNIPPETS)
        elif kind == 4:
            data[a:a] = bytes(rng.randrange(32, 127) for _ in range(rng.randint(1, 8)))
        else:
            data[a:b] = data[a:b][::-1][:40]
    return bytes(data)


_SNIPPETS = (
    b"nan", b"-inf", b"1e999", b"true", b'"""', b"[[x]]\n", b"\xff\xfe", b"\x00", b"9" * 30,
    b"= ", b"{a = 1}", b"[training]\n", b"-5", b"0x", b"1979-05-27T07:32:00Z", b"\\u12", b"\r\n",
)  # fmt: skip


# ------------------------------------------------------------------ the state of a checkpoint

_JUNK = (None, "x", "", -1, 10**12, 1e300, True, [], {}, [[]], {"tensor": "x"}, "../../etc/passwd")


def _with_junk(value: Any, rng: random.Random) -> Any:
    """The same JSON value with one part of it, at a random place, made something else."""
    parts = sorted(value) if isinstance(value, dict) else range(len(value))
    key = rng.choice(list(parts))
    part = value[key]
    if isinstance(part, (dict, list)) and part and rng.random() < 0.8:
        changed = _with_junk(part, rng)
    elif isinstance(value, dict) and rng.random() < 0.2:
        return {name: item for name, item in value.items() if name != key}
    else:
        changed = rng.choice(_JUNK)
    if isinstance(value, dict):
        return {**value, key: changed}
    return [*value[:key], changed, *value[key + 1 :]]


def mutated_states(folder: Path, count: int) -> dict[str, Any]:
    """A checkpoint whose state says something else, its hashes made right: loaded or refused."""
    trainer = small_trainer(folder / "run", updates=2)
    trainer.attach(noise())
    checkpoint = trainer.store.path(2)
    text = (checkpoint / "state.json").read_text()
    rng, other = random.Random(0), []
    for _ in range(count):
        changed = _with_junk(json.loads(text), rng)
        (checkpoint / "state.json").write_text(json.dumps(changed))
        rehash(checkpoint)
        try:
            trainer.load_checkpoint(checkpoint)
        except WorldFluxError:
            continue
        except Exception as error:  # its kind is the result
            other.append(f"{type(error).__name__}: {error}")
    return {"states": count, "other": other}


# ------------------------------------------------------------------ the files of a run folder

RUN_FILES = ("run_manifest.json", "metrics.jsonl", "eval.jsonl")


def mutated_run_files(reference: Path, place: Path, seed: int) -> str:
    """Resume a run that has ended, one of its files changed: "" if it continued or was refused."""
    rng = random.Random(seed)
    root = copied(reference, place / "project")
    path = root / "outputs" / RUN_FILES[seed % len(RUN_FILES)]
    lines = path.read_text().splitlines()
    if rng.random() < 0.3:
        path.write_bytes(_mutated(path.read_bytes(), rng))
    elif path.suffix == ".json":
        path.write_text(json.dumps(_with_junk(json.loads(path.read_text()), rng)))
    else:
        number = rng.randrange(len(lines))
        lines[number] = json.dumps(_with_junk(json.loads(lines[number]), rng))
        path.write_text("\n".join(lines) + "\n")
    log = place / "log.txt"
    further = ["training.total_steps=10"]
    code = finished(lambda: run(root, resume=True, overrides=further), log)
    last = log.read_text().strip().splitlines()[-1]
    errors = [line for line in log.read_text().splitlines() if line.startswith("worldflux.errors.")]
    shutil.rmtree(root)
    return "" if code == 0 or (code in (1, 2) and errors) else f"{path.name}: {last}"


def ended_run(folder: Path) -> Path:
    """A short run that ended."""
    root = write_project(folder / "ended", "tdmpc2", steps=8)
    assert finished(lambda: run(root), folder / "ended.log") == 0
    return root
