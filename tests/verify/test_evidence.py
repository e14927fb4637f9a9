"""Reports and evidence folders: self-contained, hashed, and the same verdict again."""

from __future__ import annotations

import html
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from worldflux.errors import VerificationError
from worldflux.verify.evidence import FILE, Inputs, check_evidence, judge, write_evidence
from worldflux.verify.proof import PROVEN, ProofSettings
from worldflux.verify.quick import QuickSettings
from worldflux.verify.report import html_report, write_report

from ..warm import Warm
from .runs import make_run
from .test_proof import GOOD, runs


def evidence(tmp_path: Path) -> Path:
    inputs = Inputs("proof", (runs(tmp_path / "runs", seeds=3),), (), ProofSettings())
    return write_evidence(tmp_path / "evidence", inputs, judge(inputs))


def test_evidence_gives_the_same_verdict_without_the_runs(tmp_path: Path) -> None:
    folder = evidence(tmp_path)
    (tmp_path / "runs").rename(tmp_path / "gone")
    verdict = check_evidence(folder)
    assert [check.status for check in verdict.checks] == ["pass", "pass"], str(verdict)
    assert verdict.conclusion == json.loads((folder / FILE).read_text())["verdict"]["verdict"]


@pytest.mark.parametrize("change", ["changed", "missing", "added", "verdict"])
def test_a_change_in_the_evidence_is_found(tmp_path: Path, change: str) -> None:
    folder = evidence(tmp_path)
    file = folder / "inputs" / "000" / "eval.jsonl"
    if change == "changed":
        file.write_text(file.read_text().replace("955.0", "999.0"))
    elif change == "missing":
        file.unlink()
    elif change == "added":
        (folder / "inputs" / "more").write_text("more")
    else:
        content = json.loads((folder / FILE).read_text())
        content["verdict"]["verdict"] = (
            "proven" if content["verdict"]["verdict"] != "proven" else "x"
        )
        (folder / FILE).write_text(json.dumps(content))
    verdict = check_evidence(folder)
    assert (verdict.passed, verdict.word) == (False, "fail")


def test_evidence_may_leave_weights_out_and_grow_by_a_run(tmp_path: Path) -> None:
    settings, (first, *others) = ProofSettings(), sorted(runs(tmp_path / "runs", seeds=3).iterdir())
    inputs = Inputs("proof", tuple(others), (), settings)
    small = write_evidence(tmp_path / "small", inputs, judge(inputs), weights=False)
    assert not list(small.rglob("*.safetensors"))
    more = Inputs("proof", (small / "inputs", first), (), settings)
    verdict = judge(more)
    assert (
        verdict.conclusion == judge(Inputs("proof", (tmp_path / "runs",), (), settings)).conclusion
    )
    folder = write_evidence(tmp_path / "grown", more, verdict, weights=False)
    assert check_evidence(folder).passed
    manifest = folder / "inputs" / "000" / "run_manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"weights_sha256": "0" * 64}))
    failed = judge(Inputs("proof", (folder / "inputs",), (), settings)).checks[0]
    assert failed.status == "fail"
    assert "final weights" in failed.detail
    quick = Inputs("quick", (first,), (), QuickSettings())
    with pytest.raises(VerificationError, match="proof mode alone"):
        write_evidence(tmp_path / "quick", quick, verdict, weights=False)


def test_evidence_overwrites_nothing_and_says_where_there_is_none(tmp_path: Path) -> None:
    folder = evidence(tmp_path)
    inputs = Inputs("proof", (tmp_path / "runs",), (), ProofSettings())
    with pytest.raises(VerificationError, match="not empty"):
        write_evidence(folder, inputs, judge(inputs))
    with pytest.raises(VerificationError, match="no evidence here"):
        check_evidence(tmp_path)


def test_the_report_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    root = tmp_path / "<script>alert(1)</script>"
    make_run(root / "run", 0, GOOD)
    inputs = Inputs("proof", (root,), (), ProofSettings())
    verdict = judge(inputs)
    run = root / "run"
    text = write_report(tmp_path / "out.html", verdict, [run], date="a day").read_text()
    assert "insufficient evidence" in text
    assert "code of 2023" in text  # the warnings come along
    assert text.count("data:image/svg+xml;base64,") >= 1  # one seed has its plot too
    assert "a day" in text
    assert "worldflux verify --target" in text
    assert "<script" not in text
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert html_report(judge(inputs), [run], "a day") == text  # the same again


def test_the_report_repeats_every_session_as_it_was_typed(tmp_path: Path) -> None:
    make_run(tmp_path / "run", 0, GOOD)
    typed = [
        ["worldflux", "train", "--set", 'training.log_to=["wandb"]'],
        ["worldflux", "train", "--resume"],
    ]
    record = tmp_path / "run" / "run_manifest.json"
    content = json.loads(record.read_text()) | {"wall_s": 36.0}
    record.write_text(json.dumps(content | {"sessions": [{"command": words} for words in typed]}))
    verdict = judge(Inputs("proof", (tmp_path,), (), ProofSettings()))
    text = html.unescape(html_report(verdict, [tmp_path / "run"], "a day"))
    for words in typed:
        assert f"{shlex.join(words)}  # {tmp_path / 'run'}\n" in text
    assert "environment steps, 36 s" in text


def test_the_command_proves_reports_and_keeps_evidence(tmp_path: Path, python: Warm) -> None:
    runs(tmp_path / "runs", seeds=1)

    def verify(*arguments: str) -> subprocess.CompletedProcess[str]:
        return python.run("-m", "worldflux", "verify", *arguments, cwd=tmp_path)

    options = ["--mode", "proof", "--report", "out.html", "--evidence", "kept", "--json"]
    done = verify("--target", "runs", *options)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["verdict"] == "insufficient evidence"
    assert (tmp_path / "out.html").is_file()
    again = verify("--evidence", "kept")
    assert again.returncode == 3
    assert "verdict: INSUFFICIENT EVIDENCE" in again.stdout
    assert "same verdict" in again.stdout


KEPT = sorted((Path(__file__).parents[2] / "docs" / "evidence").iterdir())


@pytest.mark.parametrize("folder", KEPT, ids=[folder.name for folder in KEPT])
def test_what_our_results_rest_on_still_gives_its_verdict(folder: Path) -> None:
    """What `make prove` keeps; a negative control is never called proven."""
    verdict = check_evidence(folder)
    assert [check.status for check in verdict.checks] == ["pass", "pass"]
    assert not (folder.name.startswith("negative-") and verdict.conclusion == PROVEN)
