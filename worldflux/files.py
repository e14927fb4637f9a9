"""Writing files so that a crash leaves the old one or the new one, never half of either."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError


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


def write_text(path: Path, text: str) -> None:
    """Replace a text file at once: written aside, flushed, renamed, the folder flushed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_file(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file at once; numbers that JSON cannot hold become null."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def read_json_object(path: Path, what: str, max_bytes: int = 1 << 20) -> dict[str, Any]:
    """A JSON object from a file, its size checked first.

    Args:
        what: what the file should be, for messages.

    Raises:
        ConfigurationError: when it is missing, too large or no JSON object.
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
