"""An export with its certificate: how far its answers are from the agent's, over how many states;
written together, and checked again at any time."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

from worldflux import __version__
from worldflux.acting.agent import Agent
from worldflux.acting.load import load_agent
from worldflux.core.hub import is_reference
from worldflux.core.world_model import WorldModel
from worldflux.errors import ConfigurationError, ExportError, did_you_mean
from worldflux.evaluation.episodes import require_policy
from worldflux.files import (
    read_json_object,
    replacing,
    require_place,
    sha256_of,
    write_json,
    written_or_told,
)
from worldflux.layout import EXPORTS
from worldflux.progress import SILENT, Progress

from .comparison import TOLERANCE, compared, require_close
from .formats import FORMATS, Format
from .policy_graph import PolicyGraph

STATES = 1000

Certificate = dict[str, Any]


def certificate_path(file: Path) -> Path:
    """Where the certificate of an exported file is."""
    return file.with_name(f"{file.name}.json")


def export_agent(
    source: str,
    to: str,
    output: Path | None = None,
    *,
    policy: str = "prior",
    checkpoint: str | None = None,
    states: int = STATES,
    progress: Progress = SILENT,
) -> tuple[Path, Certificate]:
    """Write a policy as a program that needs no worldflux, and its certificate next to it.

    Args:
        source: what `load_agent` opens.
        to: one of `FORMATS`.
        output: by default POLICY.SUFFIX in the folder "exports" of the run or model.
        policy: "prior" or "plan".
        states: over which the export is compared with the agent.

    Raises:
        ConfigurationError: for an unknown format or policy, or where no file can be.
        MissingDependencyError: without the packages of the format.
        CapabilityError: when the model does not act by a graph of tensors.
        ExportError: when the export differs from the agent; no file is written.
    """
    kind = _format(to)
    if output is not None:
        require_place(output, "--output", makes_folders=True)
    agent = _agent_of(source, checkpoint)
    require_policy(agent.model, policy)
    progress.phase("tracing the policy")
    graph = PolicyGraph(agent.model, agent.observation_space, agent.action_space, policy)
    home = agent.folder or agent.checkpoint or Path()
    output = output or home / EXPORTS / f"{policy}{kind.suffix}"
    certificate: Certificate = {
        "worldflux": __version__,
        "format": to,
        "policy": policy,
        "source": str(home.absolute()) if agent.checkpoint else source,
        "checkpoint": agent.checkpoint.name if agent.folder and agent.checkpoint else None,
        "weights_sha256": weights_sha256(agent.model),
        "model": agent.model.config.model_type,
        "environment": agent.adapter.name,
        "observation_space": str(agent.observation_space),
        "action_space": str(agent.action_space),
        "inputs": [vars(port) for port in graph.inputs],
        "outputs": [vars(port) for port in graph.outputs],
    }
    with written_or_told(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as partial:
            progress.phase(f"writing {output.name}")
            facts = {key: str(value) for key, value in certificate.items()}
            kind.write(graph, partial, facts, agent)
            with kind.open(partial, graph) as run:
                certificate |= compared(run, graph, agent, states, progress)
            certificate |= {"tolerance": TOLERANCE, "sha256": sha256_of(partial)}
            require_close(output, certificate)
            # The certificate first: there is never a file without one.
            write_json(certificate_path(output), certificate)
    return output, certificate


def check_export(
    file: Path, source: str | None = None, *, progress: Progress = SILENT
) -> Certificate:
    """Compare an exported file with its agent again, as its certificate says.

    Args:
        source: of the agent, where it is no longer where it was.

    Returns: the certificate, with the differences found now.

    Raises:
        ConfigurationError: when there is no such file or certificate.
        ExportError: when the file or the agent has changed, or the two differ.
    """
    certificate = _certificate_of(file)
    try:
        kind, policy = _format(certificate["format"]), certificate["policy"]
        source, states = source or certificate["source"], int(certificate["states"])
        known = certificate["sha256"], certificate["weights_sha256"]
    except (KeyError, TypeError, ValueError):
        raise ConfigurationError(
            "this certificate is damaged",
            where=str(certificate_path(file)),
            hint=_export_again(file),
        ) from None
    if sha256_of(file) != known[0]:
        raise ExportError(
            "the file has changed since its certificate was written",
            where=str(file),
            hint=f"export it again: worldflux export {source} --to {certificate['format']}",
        )
    _require_source(source, file)
    agent = _agent_of(source, certificate.get("checkpoint"))
    if weights_sha256(agent.model) != known[1]:
        raise ExportError(f"the export is not of the weights in {source}", where=str(file))
    progress.phase("tracing the policy")
    graph = PolicyGraph(agent.model, agent.observation_space, agent.action_space, policy)
    with kind.open(file, graph) as run:
        certificate |= compared(run, graph, agent, states, progress)
    require_close(file, certificate)
    return certificate


def _agent_of(source: str, checkpoint: str | None) -> Agent:
    """The agent that is exported; its networks compute in float32, as those of an export do."""
    agent = load_agent(source, checkpoint=checkpoint)
    agent.model.acting_dtype = None
    return agent


def _certificate_of(file: Path) -> Certificate:
    """The certificate of an exported file; what is none is refused with the command that helps."""
    if file.is_dir():
        formats = ", ".join(kind.suffix for kind in FORMATS.values())
        raise ConfigurationError(
            "--check takes an exported file, and this is a folder",
            where=str(file),
            hint=f"name the file ({formats}): worldflux export --check exports/prior.onnx",
        )
    if not file.is_file():
        raise ConfigurationError("no exported file here", where=str(file), hint=_export_again(file))
    if not certificate_path(file).is_file():
        raise ConfigurationError(
            "no certificate of an export here, and without it nothing can be checked",
            where=str(certificate_path(file)),
            hint=f"put it back next to {file.name}, or {_export_again(file)}",
        )
    return read_json_object(certificate_path(file), "certificate of an export")


def _export_again(file: Path) -> str:
    fitting = [name for name, kind in FORMATS.items() if kind.suffix == file.suffix]
    return f"export again: worldflux export RUN --to {(fitting or ['onnx'])[0]}"


def _require_source(source: str, file: Path) -> None:
    """Refuse the path of an agent that is not there."""
    if is_reference(source) or Path(source).expanduser().exists():
        return
    raise ConfigurationError(
        f"the run or model that this was exported from is not at {source}",
        where=str(file),
        hint=f"say where it is now: worldflux export RUN --check {shlex.quote(str(file))}",
    )


def weights_sha256(model: WorldModel) -> str:
    """Hex SHA-256 of every tensor of a model, with its name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigurationError(
            f"there is no export format {name!r}: {', '.join(FORMATS)}",
            hint=did_you_mean(name, FORMATS),
        )
    FORMATS[name].require()
    return FORMATS[name]
