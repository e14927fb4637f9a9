"""Saved models on a hub: `hf://owner/name[@revision]`, through huggingface_hub (extra `hub`).

Only config.json and model.safetensors are fetched, and both are read with the checks of any saved
model. A commit that was fetched once opens without the network.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldflux.errors import (
    CheckpointError,
    ConfigurationError,
    ModelNotFoundError,
)
from worldflux.layout import CONFIG_FILE, WEIGHTS_FILE, cache_folder
from worldflux.optional import require

if TYPE_CHECKING:
    from .world_model import WorldModel

SCHEME = "hf://"
FILES = (CONFIG_FILE, WEIGHTS_FILE)
_REFERENCE = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_reference(model: str) -> bool:
    """Whether a model's name is a reference to a hub."""
    return model.startswith(SCHEME)


def download(reference: str) -> Path:
    """The folder of a saved model; its files are fetched unless that commit is here already.

    The revision is a branch, a tag or a commit; "main" by default.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigurationError(
            f"{reference!r} names no model on a hub",
            hint="write hf://owner/name, or hf://owner/name@revision",
        )
    repo_id, revision = match[1], match[2] or "main"
    root = cache_folder() / "hub" / repo_id.replace("/", "--")
    if _COMMIT.fullmatch(revision) and _complete(root / revision):
        return root / revision
    hub = _huggingface_hub()
    try:
        commit = str(_api(hub).model_info(repo_id, revision=revision).sha)
        folder = root / commit  # regular files; the reader refuses the links of the hub's own cache
        for name in () if _complete(folder) else FILES:
            hub.hf_hub_download(
                repo_id, name, revision=commit, local_dir=folder, endpoint=_endpoint()
            )
    except (
        hub.errors.RepositoryNotFoundError,
        hub.errors.RevisionNotFoundError,
        hub.errors.RemoteEntryNotFoundError,
        hub.errors.HFValidationError,
    ) as error:
        raise ModelNotFoundError(_first_line(error), where=reference) from None
    except _transfer_errors(hub) as error:
        raise CheckpointError(
            f"download from the hub failed: {_first_line(error)}",
            where=reference,
            hint=f"a commit that was downloaded before opens offline: {SCHEME}{repo_id}@COMMIT",
        ) from None
    return folder


def push(
    model: WorldModel, repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Upload `model` to a repository, created if missing; returns `hf://owner/name@commit`."""
    hub = _huggingface_hub()
    api = _api(hub, token)
    with tempfile.TemporaryDirectory(prefix="worldflux-") as folder:
        model.save_pretrained(folder)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            info = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message="Upload of a worldflux model",
            )
        except hub.errors.HFValidationError as error:
            raise ConfigurationError(_first_line(error), hint="write owner/name") from None
        except _transfer_errors(hub) as error:
            raise CheckpointError(
                f"upload to the hub failed: {_first_line(error)}",
                where=f"{SCHEME}{repo_id}",
                hint="hf auth login, or set HF_TOKEN",
            ) from None
    return f"{SCHEME}{repo_id}@{info.oid}"


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")


def _api(hub: Any, token: str | None = None) -> Any:
    return hub.HfApi(endpoint=_endpoint(), token=token, library_name="worldflux")


def _huggingface_hub() -> Any:
    require("a model on a hub", "hub", "huggingface_hub")
    import huggingface_hub
    import huggingface_hub.errors

    return huggingface_hub


def _transfer_errors(hub: Any) -> tuple[type[Exception], ...]:
    """Errors of the hub, of the disk, and of the HTTP client when no answer comes."""
    error = hub.errors.HfHubHTTPError
    return (error, OSError, *(base for base in error.__mro__ if base.__name__ == "HTTPError"))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
