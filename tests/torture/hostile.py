"""Files that a stranger hands over: each refused by name, in no time, and nothing in them runs."""

from __future__ import annotations

import json
import math
import os
import pickle
import resource
import shutil
import signal
import struct
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from projects import finished, rehash
from saves import noise, small_trainer

from worldflux.core.saved_model import load_tensors, save_tensors
from worldflux.errors import WorldFluxError
from worldflux.factory import create_world_model
from worldflux.models.registry import import_file
from worldflux.project.loader import load_project
from worldflux.project.open_run import open_run
from worldflux.training.checkpoints import _hash_of

SECONDS = 2.0
HANGS_S = 60.0  # what takes as long is ended
GROWTH_MIB = 200
TOML = 'project_name = "a"\nenvironment = "Pendulum-v1"\nmodel = "tdmpc2:ci"\n'


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.canary),))


def _header(folder: Path, header: Any, body: bytes = b"", size: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = struct.pack("<Q", len(text) if size is None else size)
    (folder / "model.safetensors").write_bytes(length + text + body)


def _entry(shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}


def _weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        tensors = load_tensors(folder / "model.safetensors")
        change(tensors)
        save_tensors(tensors, folder / "model.safetensors")

    return make


def _first(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name, t in tensors.items() if t.is_floating_point() and t.dim() == 2)


def _wrong_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[_first(tensors)] = torch.zeros(3, 1)


def _wrong_dtype(tensors: dict[str, torch.Tensor]) -> None:
    tensors[_first(tensors)] = tensors[_first(tensors)].to(torch.int64)


def _not_finite(tensors: dict[str, torch.Tensor]) -> None:
    tensors[_first(tensors)][0, 0] = float("nan")


def _pickled(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(canary)))


def _torch_saved(folder: Path, canary: Path) -> None:
    torch.save({"model": Bomb(canary)}, folder / "model.safetensors")


def _sparse(folder: Path, canary: Path) -> None:
    _header(folder, b"{}", size=200 << 20)
    os.truncate(folder / "model.safetensors", 1 << 30)


def _to_passwd(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("/etc/passwd")

    return make


def _fifo(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


def _text(name: str, text: str) -> Callable[[Path, Path], None]:
    return lambda folder, canary: (folder / name).write_text(text) and None


def _json(name: str, **changes: Any) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return make


def _safetensors(header: Any, body: bytes = b"", size: int | None = None) -> Any:
    return lambda folder, canary: _header(folder, header, body, size)


_DEEP = "[" * 100_000 + "]" * 100_000
_MANY = {f"t{i}": _entry([1], 4 * i, 4 * i + 4) for i in range(10_000)}
_OVERLAP = {"a": _entry([4], 0, 16), "b": _entry([4], 8, 24)}
_ONE = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
_TWICE = b"{" + _ONE + b"," + _ONE + b"}"

Make = Callable[[Path, Path], None]
Door = Callable[[Path], object]
SAVED_MODELS: dict[str, Make] = {
    "pickle named safetensors": _pickled,
    "torch.save named safetensors": _torch_saved,
    "header of 4 GiB": _safetensors(b"{}", size=4 << 30),
    "header of 200 MiB in a sparse file": _sparse,
    "overlapping tensors": _safetensors(_OVERLAP, b"\0" * 24),
    "a tensor twice": _safetensors(_TWICE, b"\0" * 4),
    "10,000 foreign tensors": _safetensors(_MANY, b"\0" * 40_000),
    "deep header": _safetensors(_DEEP.encode()),
    "empty weights": _safetensors(b"", size=0),
    "weights of no bytes": lambda folder, canary: os.truncate(folder / "model.safetensors", 0),
    "weights cut in the middle": lambda folder, canary: os.truncate(
        folder / "model.safetensors", (folder / "model.safetensors").stat().st_size // 2
    ),
    "another shape": _weights(_wrong_shape),
    "another type": _weights(_wrong_dtype),
    "NaN in the weights": _weights(_not_finite),
    "a tensor missing": _weights(lambda tensors: tensors.__delitem__(_first(tensors))),
    "an extra tensor": _weights(lambda tensors: tensors.update(extra=torch.ones(1))),
    "weights that are a link": _to_passwd("model.safetensors"),
    "weights that are a pipe": _fifo("model.safetensors"),
    "configuration that is a pipe": _fifo("config.json"),
    "deep configuration": _text("config.json", _DEEP),
    "configuration of 2 MB": _text("config.json", "{" + " " * 2_000_000 + "}"),
    "configuration of no family": _json("config.json", model_type="os.system"),
    "configuration of 10^12 weights": _json("config.json", hidden_dim=1_000_000),
}


def _replay_outside(folder: Path, canary: Path) -> None:
    state = json.loads((folder / "state.json").read_text())
    state["data"]["chunks"][0]["file"] = "../../../../etc/passwd"
    (folder / "state.json").write_text(json.dumps(state))
    rehash(folder)


def _state(**changes: Any) -> Make:
    def make(folder: Path, canary: Path) -> None:
        _json("state.json", **changes)(folder, canary)
        rehash(folder)

    return make


def _manifest_names(name: str) -> Make:
    def make(folder: Path, canary: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = manifest["files"]["state.json"]
        _write_manifest(folder, manifest)

    return make


def _format_99(folder: Path, canary: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    _write_manifest(folder, {**manifest, "format": 99})


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    del manifest["sha256"]
    manifest["sha256"] = _hash_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


CHECKPOINTS: dict[str, Make] = {
    "manifest that names a file outside": _manifest_names("../../../etc/passwd"),
    "deep manifest": _text("manifest.json", _DEEP),
    "manifest of format 99": _format_99,
    "state that is a link": _to_passwd("state.json"),
    "state that is a pipe": _fifo("state.json"),
    "replay file outside": _replay_outside,
    "state without its parts": _state(best={"step": "../.."}, callbacks=None, data={}),
}


def _npz_objects(folder: Path, canary: Path) -> None:
    np.savez(folder / "data.npz", obs=np.array([Bomb(canary)], dtype=object))


def _npz_bomb(folder: Path, canary: Path) -> None:
    with zipfile.ZipFile(folder / "data.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("reward.npy", b"\0" * (100 << 20))


REPLAYS: dict[str, Make] = {"npz of objects": _npz_objects, "npz of 100 MiB": _npz_bomb}


def _official(folder: Path, canary: Path) -> None:
    torch.save({"model": Bomb(canary)}, folder / "official.pt")


TOMLS: dict[str, Make] = {
    "TOML of a 40 KB dotted key": _text("worldflux.toml", ".".join("a" * 20_000) + " = 1\n"),
    "TOML of deep arrays": _text("worldflux.toml", f"{TOML}x = {_DEEP}\n"),
    "TOML that is a pipe": lambda f, c: os.mkfifo(f / "worldflux.toml"),
    "TOML that never ends": lambda f, c: (f / "worldflux.toml").symlink_to("/dev/zero"),
}
RUNS: dict[str, Make] = {
    "run that names a checkpoint outside": _text(
        "run_manifest.json",
        json.dumps({"schema_version": 1, "best": {"step": "../../.."}, "project_name": "a"}),
    ),
    "deep run manifest": _text("run_manifest.json", _DEEP),
}


def refusals(folder: Path) -> dict[str, Verdict]:
    """Each input through its public door: refused, or what went wrong."""
    trainer = small_trainer(folder / "run", updates=1)
    model, checkpoint = folder / "model", trainer.store.path(1)
    trainer.model.save_pretrained(model)
    empty = folder / "empty"
    empty.mkdir()

    def resume(path: Path) -> object:
        trainer.attach(noise())
        return trainer.load_checkpoint(path)

    doors: list[tuple[dict[str, Make], Path, Door]] = [
        (SAVED_MODELS, model, create_world_model),
        (CHECKPOINTS, checkpoint, resume),
        (REPLAYS, empty, lambda path: noise().load(path / "data.npz")),
        (
            {"official file that is a pickle": _official},
            empty,
            lambda path: import_file("tdmpc2", path / "official.pt", path / "to", {}),
        ),
        (TOMLS, empty, load_project),
        (RUNS, empty, open_run),
    ]
    found = {}
    for inputs, base, door in doors:
        for name, make in inputs.items():
            given = folder / name.replace(" ", "-").replace(",", "")
            shutil.copytree(base, given)
            make(given, folder / "canary")
            found[name] = refusal(given, door, folder)
    return found


@dataclass(frozen=True)
class Verdict:
    """What a door made of an input ("refused" is right), and how long it took."""

    outcome: str
    seconds: float


def refusal(
    given: Path, door: Door, folder: Path, limit_s: float = SECONDS, hangs_s: float = HANGS_S
) -> Verdict:
    """Hand an input to a door, in a process that has imported everything; judge what it did.

    Wall time counts, a wait for a pipe or a lock as much as work; only the time in which the
    kernel gave the processor to others does not. What took too long is tried twice more, because
    a machine may stall: an input that is slow is slow each time. One that hangs is killed.
    """
    verdict = _tried(given, door, folder, limit_s, hangs_s)
    for _ in range(2):
        if verdict.outcome != "slow":
            break
        verdict = _tried(given, door, folder, limit_s, hangs_s)
    return verdict


def _tried(given: Path, door: Door, folder: Path, limit_s: float, hangs_s: float) -> Verdict:
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)

    def attempt() -> None:
        signal.alarm(math.ceil(hangs_s))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = _undisturbed()
        try:
            door(given)
        except WorldFluxError as error:
            outcome = str(error)
        except BaseException as error:
            outcome = f"{type(error).__name__}"
        else:
            outcome = "accepted"
        seconds = _undisturbed() - began
        growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
        if growth >= GROWTH_MIB:
            outcome = f"{growth} MiB of memory: {outcome}"
        elif given.name in outcome or "/etc/passwd" in outcome:
            outcome = "refused" if seconds < limit_s else "slow"
        answer.write_text(json.dumps([outcome, seconds]))

    code = finished(attempt)
    if (folder / "canary").exists():
        return Verdict("executed", 0.0)
    if code == -signal.SIGALRM:
        return Verdict("hangs", hangs_s)
    return Verdict(*json.loads(answer.read_text())) if code == 0 else Verdict(f"exit {code}", 0.0)


def _undisturbed() -> float:
    """Wall time less what this thread waited for a processor while others had it."""
    statistics = Path("/proc/thread-self/schedstat")
    waited = int(statistics.read_text().split()[1]) / 1e9 if statistics.exists() else 0.0
    return time.monotonic() - waited
