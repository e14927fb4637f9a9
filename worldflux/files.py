"""Writing files so that a crash leaves the old one or the new one, never half of either."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError, StorageError

_REMEDIES: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free disk space"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make the folder writable"),
}


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def written_or_told(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Within the block, a disk that does not take what is written at `path` is a StorageError."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise _not_written(path, error, needed_bytes) from None
    except Exception as error:
        # safetensors raises an operating system's error as its own class. It is known by its name,
        # so that light commands need not import the package.
        if type(error).__name__ != "SafetensorError" or "os error" not in str(error):
            raise
        raise _not_written(path, error, needed_bytes) from None


def disk_error(error: OSError, folder: Path) -> StorageError | None:
    """A disk's refusal somewhere below `folder` as a StorageError; None for other errors."""
    if error.errno not in _REMEDIES:
        return None
    return _not_written(Path(os.fsdecode(error.filename or folder)), error, None)


def require_place(path: Path, option: str, *, makes_folders: bool = False) -> None:
    """Refuse a file to write whose folder is not there, before any work is done for it.

    Args:
        option: of the command line, which named the file.
        makes_folders: whether missing folders are made.

    Raises:
        ConfigurationError: the file is a folder, or its folder is missing, none, or not writable.
    """
    if path.is_dir():
        hint = f"name the file, too: {option} {shlex.quote(str(path / 'NAME'))}"
        raise ConfigurationError(f"{path} is a folder, not a file", where=option, hint=hint)
    folder = path.absolute().parent
    while makes_folders and not folder.exists():
        folder = folder.parent
    if not folder.exists():
        hint = f"make it: mkdir -p {shlex.quote(str(path.parent))}"
        raise ConfigurationError(
            f"the folder {path.parent} does not exist", where=option, hint=hint
        )
    if not folder.is_dir():
        hint = f"name a file in a folder: {option} {shlex.quote(path.name)}"
        raise ConfigurationError(f"{folder} is a file, not a folder", where=option, hint=hint)
    if not os.access(folder, os.W_OK):
        hint = f"name a file in a folder that is yours: {option} ~/{shlex.quote(path.name)}"
        raise ConfigurationError(f"nothing can be written to {folder}", where=option, hint=hint)


def require_free(path: Path, needed_bytes: int) -> None:
    """Refuse before anything is written when the disk of `path` has no room for it."""
    if free_bytes(path) < needed_bytes:
        raise _not_written(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), needed_bytes)


def _not_written(path: Path, error: Exception, needed_bytes: int | None) -> StorageError:
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    number = error.errno if isinstance(error, OSError) else _number_in(reason)
    remedy = _REMEDIES.get(number, "repair the disk")
    needed = "" if needed_bytes is None else f"{needed_bytes:,} bytes are needed, "
    free = f"{free_bytes(path):,} are free" if needed else f"{free_bytes(path):,} bytes are free"
    refusal = StorageError(
        f"cannot be written: {reason}; {needed}{free}",
        where=str(path),
        hint=f"earlier checkpoints are intact: {remedy}, then worldflux train --resume",
    )
    refusal.strerror = reason
    return refusal


def _number_in(reason: str) -> int | None:
    """The error number in safetensors' words: "... (os error 30)"."""
    found = re.search(r"os error (\d+)", reason)
    return None if found is None else int(found.group(1))


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that `path` is on, or would be on."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path next to `path` to write to; it takes its place if the block succeeds."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step that survives a crash, or raise StorageError."""
    with written_or_told(path, len(text.encode(errors="surrogatepass"))):
        with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync_file(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file at once; numbers that JSON cannot hold become null."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def read_json_object(path: Path, what: str, max_bytes: int = 1 << 20) -> dict[str, Any]:
    """A JSON object from a file, its size checked first.

    Args:
        what: what the file should be, for messages.
    """
    if not path.is_file():
        raise ConfigurationError(f"no {what} here", where=str(path))
    if path.stat().st_size > max_bytes:
        raise ConfigurationError(f"a {what} is at most {max_bytes:,} bytes", where=str(path))
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"not a JSON file: {error}", where=str(path)) from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"a {what} is a JSON object", where=str(path))
    return value


def finite(value: Any) -> Any:
    """The same value with NaN and infinities as None, so that it is strict JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
