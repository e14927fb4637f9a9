"""No export without a certificate, none that acts otherwise, and a changed one is found out."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from worldflux import __version__, create_world_model
from worldflux.acting.load import load_agent
from worldflux.cli.app import main
from worldflux.errors import (
    ConfigurationError,
    ExportError,
    MissingDependencyError,
    ModelNotFoundError,
)
from worldflux.export.certificate import check_export, export_agent
from worldflux.export.formats import FORMATS, Format

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")


@pytest.fixture(scope="session")
def exported(saved_model: Path) -> Path:
    """An ONNX file of the saved model."""
    file, _ = export_agent(str(saved_model), "onnx", states=200)
    return file


def test_onnx_has_the_names_and_facts_of_the_agent(exported: Path, saved_model: Path) -> None:
    assert exported == saved_model / "exports" / "prior.onnx"
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["observation", "is_first"]
    assert [(out.name, out.shape) for out in session.get_outputs()] == [("action", [2])]
    facts = session.get_modelmeta().custom_metadata_map
    certificate = json.loads(exported.with_name("prior.onnx.json").read_text())
    assert facts["worldflux"] == __version__
    assert facts["action_space"] == "Box(-1.0, 1.0, (2,), float32)"
    assert facts["weights_sha256"] == certificate["weights_sha256"]
    assert certificate["states"] == 200
    assert certificate["largest_difference"] <= certificate["tolerance"] == 1e-5


def test_a_torch_program_acts_as_the_agent(saved_model: Path, tmp_path: Path) -> None:
    file, certificate = export_agent(str(saved_model), "torch", tmp_path / "a.pt2", states=50)
    assert certificate["largest_difference"] < 1e-6
    assert file.with_name("a.pt2.json").is_file()


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_c_file_acts_as_the_agent(saved_model: Path) -> None:
    file, certificate = export_agent(str(saved_model), "c", states=100)
    assert certificate["largest_difference"] < 1e-6
    assert check_export(file)["states"] == 100


def test_check_passes_and_says_so(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "--check", str(exported)])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "over 200 states; rounding decided 0 of them (0.00%)" in printed


def test_a_damaged_export_fails_its_check(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("prior.onnx", "prior.onnx.json"):
        shutil.copy(exported.with_name(name), tmp_path)
    damaged = tmp_path / "prior.onnx"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(["export", "--check", str(damaged)])
    assert ended.value.code == 3
    assert "changed since its certificate was written" in capsys.readouterr().err


def test_an_export_of_other_weights_fails_its_check(exported: Path, tmp_path: Path) -> None:
    create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=2).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="is not of the weights"):
        check_export(exported, str(tmp_path))


def test_an_export_that_acts_otherwise_is_not_written(
    saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"action": np.full(2, 0.5, np.float32)}
    broken = Format(
        ".txt",
        lambda graph, path, facts, agent: path.write_text("x"),
        lambda path, graph: nullcontext(lambda _: wrong),
    )
    monkeypatch.setitem(FORMATS, "broken", broken)
    with pytest.raises(ExportError, match=r"differs from its agent by .* in 'action'"):
        export_agent(str(saved_model), "broken", tmp_path / "out" / "policy.txt", states=5)
    assert list(tmp_path.rglob("*.*")) == []


def test_what_cannot_be_exported_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="no export format 'onxx'") as refused:
        export_agent(str(tmp_path), "onxx")
    assert refused.value.hint == "did you mean 'onnx'?"
    monkeypatch.setattr("worldflux.optional.is_installed", lambda module: False)
    with pytest.raises(MissingDependencyError, match="needs onnx and onnxscript") as missing:
        export_agent(str(tmp_path), "onnx")
    assert missing.value.hint == "pip install 'worldflux[export]'"
    monkeypatch.setattr("shutil.which", lambda command: None)
    with pytest.raises(MissingDependencyError, match="by running it with cc, which is not"):
        export_agent(str(tmp_path), "c")


@pytest.mark.parametrize("place", [".", "..", "/", "exports"])
def test_a_folder_is_no_exported_file(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "exports").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["export", "--check", place])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert f"{place}: --check takes an exported file, and this is a folder" in told
    assert "worldflux export --check exports/prior.onnx" in told


@pytest.mark.parametrize(("name", "to"), [("prior.html", "html"), ("plan.pt2", "torch")])
def test_what_cannot_be_checked_says_how_to_export_it_again(
    name: str, to: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    with pytest.raises(ConfigurationError, match="no exported file here") as caught:
        check_export(file)
    assert f"worldflux export RUN --to {to}" in str(caught.value.hint)
    file.write_text("")
    with pytest.raises(ConfigurationError, match="no certificate of an export here") as caught:
        check_export(file)
    assert caught.value.where == str(tmp_path / f"{name}.json")
    assert f"worldflux export RUN --to {to}" in str(caught.value.hint)


@pytest.mark.parametrize("checkpoint", [None, "step-000000003"])
def test_the_export_of_a_run_that_was_moved_says_so(
    checkpoint: str | None, exported: Path, tmp_path: Path
) -> None:
    for name in ("prior.onnx", "prior.onnx.json"):
        shutil.copy(exported.with_name(name), tmp_path)
    file, gone = tmp_path / "prior.onnx", str(tmp_path / "gone")
    certificate = json.loads(file.with_name("prior.onnx.json").read_text())
    certificate |= {"source": gone, "checkpoint": checkpoint}
    file.with_name("prior.onnx.json").write_text(json.dumps(certificate))
    with pytest.raises(ConfigurationError, match=f"is not at {gone}") as caught:
        check_export(file)
    assert f"worldflux export RUN --check {file}" in str(caught.value.hint)
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        load_agent(gone, checkpoint="best")


@pytest.mark.parametrize("arguments", [[], ["--to", "onnx", "--check", "a.onnx"]])
def test_either_a_format_or_a_file_to_check(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", *arguments])
    assert ended.value.code == 2
    assert "worldflux export --to onnx, or worldflux export --check FILE" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tdmpc2:ci", "dreamer:ci"])
def test_an_export_computes_in_float32_whatever_the_agent_acted_in(
    name: str, tmp_path: Path
) -> None:
    model = create_world_model(name, obs_shape=(3,), action_dim=2, dtype="bfloat16")
    model.save_pretrained(tmp_path / "model")
    assert load_agent(str(tmp_path / "model")).model.acting_dtype is torch.bfloat16
    file, certificate = export_agent(str(tmp_path / "model"), "torch", states=20)
    assert certificate["largest_difference"] <= certificate["tolerance"]
    assert check_export(file)["states"] == 20
