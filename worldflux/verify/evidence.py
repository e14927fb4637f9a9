"""An evidence folder: everything that a verdict was made from, hashed, to be verified again.

    evidence.json    the mode, the settings, the verdict, and the SHA-256 of every input
    inputs/<n>/      the n-th run: manifest, logs, and its checkpoints; in proof mode, where nothing
                     is played, their hashes may do (`weights=False`)
    references/<n>   the reference files that were given

A run whose environment comes from its project's own dataset.py cannot be verified again in quick
mode: code is not copied, and never run from an evidence folder.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worldflux.errors import VerificationError
from worldflux.files import finite, read_json_object, sha256_of, write_json
from worldflux.layout import CHECKPOINT_HASHES, CHECKPOINTS
from worldflux.progress import SILENT, Progress
from worldflux.project.manifest import software

from .curves import read_curves
from .proof import ProofSettings, verify_proof
from .quick import QuickSettings, verify_quick
from .run_scores import collect_runs, files_of
from .verdict import Check, Verdict

FORMAT = 1
FILE = "evidence.json"
INPUTS, REFERENCES = "inputs", "references"
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Inputs:
    """What a verdict is made from: runs and, in proof mode, further reference files."""

    mode: str
    targets: tuple[Path, ...]
    references: tuple[Path, ...]
    settings: QuickSettings | ProofSettings


def judge(inputs: Inputs, progress: Progress = SILENT) -> Verdict:
    """The verdict of these inputs."""
    if isinstance(inputs.settings, QuickSettings):
        return verify_quick(inputs.targets[0], inputs.settings, progress=progress)
    curves = [curve for path in inputs.references for curve in read_curves(path)]
    return verify_proof(inputs.targets, inputs.settings, references=curves, progress=progress)


def write_evidence(folder: Path, inputs: Inputs, verdict: Verdict, weights: bool = True) -> Path:
    """Copy every input into a new folder and record hashes, settings and verdict."""
    if not weights and inputs.mode != "proof":
        raise VerificationError(
            "evidence without weights is possible in proof mode alone: quick mode plays the agent",
            hint="leave --no-weights out, or add --mode proof",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        problem = "is not empty" if folder.is_dir() else "is a file"
        raise VerificationError(
            f"the folder for the evidence {problem}",
            where=str(folder),
            hint="name a new one; without --target, --evidence DIR verifies that folder again",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for index, run in enumerate(collect_runs(inputs.targets)):
        target = folder / INPUTS / f"{index:03d}"
        target.mkdir(parents=True)
        for file in files_of(run):
            shutil.copyfile(file, target / file.name)
        checkpoints = run.folder / CHECKPOINTS
        if checkpoints.is_dir() and weights:
            shutil.copytree(checkpoints, target / CHECKPOINTS, ignore=_links)
        elif checkpoints.is_dir():
            hashes = {name: sha256_of(checkpoints / name) for name in _files_below(checkpoints)}
            write_json(target / CHECKPOINT_HASHES, hashes)
    for index, path in enumerate(inputs.references):
        (folder / REFERENCES).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / REFERENCES / f"{index:03d}.json")
    write_json(
        folder / FILE,
        {
            "format": FORMAT,
            "mode": inputs.mode,
            "settings": asdict(inputs.settings),
            "targets": [str(path) for path in inputs.targets],
            "references": [str(path) for path in inputs.references],
            "verdict": verdict.to_dict(),
            "software": software(),
            "files": {name: sha256_of(folder / name) for name in _files_below(folder)},
        },
    )
    return folder


def check_evidence(folder: Path, progress: Progress = SILENT) -> Verdict:
    """Verify an evidence folder again: its hashes, and that the inputs give the same verdict."""
    if not (folder / FILE).is_file():
        raise VerificationError(
            f"no evidence here: {FILE} is missing",
            where=str(folder),
            hint="write it: worldflux verify --target DIR --evidence DIR",
        )
    content = read_json_object(folder / FILE, "evidence file", _MAX_BYTES)
    if content.get("format") != FORMAT or content.get("mode") not in ("quick", "proof"):
        raise VerificationError(f"{FILE} is of another version", where=str(folder))
    progress.phase("checking files")
    checks = [_check_hashes(folder, content)]
    if checks[0].status == "pass":
        checks.append(_check_verdict(folder, content, progress))
    again = len(checks) == 2 and checks[-1].status != "fail"
    word = str(content["verdict"].get("verdict")) if again else "fail"
    warnings = [str(text) for text in content["verdict"].get("warnings", [])]
    return Verdict(str(folder), f"{content['mode']} evidence", checks, word, warnings)


def _check_hashes(folder: Path, content: dict[str, Any]) -> Check:
    recorded = content.get("files")
    if not isinstance(recorded, dict) or not isinstance(content.get("verdict"), dict):
        return Check("hashes", "fail", f"{FILE} is damaged")
    present = set(_files_below(folder))
    problems = [f"{name} is missing" for name in sorted(recorded.keys() - present)]
    problems += [f"{name} was added" for name in sorted(present - recorded.keys())]
    problems += [
        f"{name} was changed"
        for name in sorted(present & recorded.keys())
        if sha256_of(folder / name) != recorded[name]
    ]
    count = len(recorded)
    return Check.unless(problems, "hashes", f"{count} files, all hashes match", {"files": count})


def _check_verdict(folder: Path, content: dict[str, Any], progress: Progress) -> Check:
    kind = QuickSettings if content["mode"] == "quick" else ProofSettings
    try:
        settings = kind(**content["settings"])
    except TypeError as error:
        return Check("same verdict", "fail", f"the settings cannot be read: {error}")
    runs = sorted((folder / INPUTS).iterdir())
    references = sorted((folder / REFERENCES).glob("*.json"))
    inputs = Inputs(content["mode"], tuple(runs), tuple(references), settings)
    found = judge(inputs, progress)
    again, recorded = finite(found.to_dict()), content["verdict"]
    statuses = [(check["name"], check["status"]) for check in again["checks"]]
    before = [(check["name"], check["status"]) for check in recorded.get("checks", [])]
    if again["verdict"] != recorded.get("verdict") or statuses != before:
        return Check("same verdict", "fail", f"these inputs now give {again['verdict']!r}")
    words = f"the same inputs give {again['verdict']!r} again"
    pairs = zip(again["checks"], recorded["checks"], strict=True)
    if all(_alike(one["numbers"], other["numbers"]) for one, other in pairs):
        return Check("same verdict", "pass", words)
    if content["mode"] == "proof":
        return Check("same verdict", "fail", "the numbers differ")
    # On another machine rounding differs, and so does the episode that the agent plays.
    return Check("same verdict", "warn", f"{words}, with other numbers")


def _alike(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same, numbers up to rounding."""
    if isinstance(one, float) or isinstance(other, float):
        return isinstance(other, (int, float)) and math.isclose(one, other, rel_tol=1e-6)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other)


def _links(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_symlink()]


def _files_below(folder: Path) -> list[str]:
    """Every file but evidence.json, by its path below the folder."""
    paths = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(name for name in names if name != FILE)
