"""What a run's model imagined at its evaluations: pictures, videos and errors by horizon."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from worldflux.dashboard.contained import list_contained, open_contained
from worldflux.dashboard.history import to_count, to_number
from worldflux.layout import IMAGINATION
from worldflux.run_log import parse_row

NUMBERS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,115}\.json")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.(?:mp4|gif|png|svg|pdf)")
MAX_LISTED = 200
MAX_NUMBERS_BYTES = 256 << 10
MAX_HORIZON = 10_000
KINDS = ("observation", "reward", "value")
PREDICTORS = ("model", "persistence", "mean")


def list_imaginations(folder: Path) -> list[dict[str, Any]]:
    """Pictures with what belongs to them, oldest first: {name, picture, video, ...}."""
    names = {entry.name for entry in list_contained(folder, IMAGINATION)}
    found = []
    for picture in sorted(name for name in names if name.endswith(".png")):
        if FILE_NAME.fullmatch(picture) is None:
            continue
        stem = picture.removesuffix(".png")
        videos = [name for name in (f"{stem}.mp4", f"{stem}.gif") if name in names]
        found.append(
            {
                "name": stem,
                "picture": picture,
                "video": videos[0] if videos else None,
                "drawings": [n for kind in ("svg", "pdf") if (n := f"{stem}.{kind}") in names],
                "dark": n if (n := f"{stem}-dark.svg") in names else None,
                "has_errors": f"{stem}.json" in names,
            }
        )
    return found[-MAX_LISTED:]


def read_imagination(folder: Path, name: str) -> dict[str, Any] | None:
    """One evaluation's errors by horizon: {name, windows, context, decodes_observations, errors}.

    `errors[kind][predictor]` is a list of finite numbers or None; anything else is left out.
    """
    if NUMBERS_NAME.fullmatch(f"{name}.json") is None:
        return None
    try:
        with open_contained(folder, IMAGINATION, f"{name}.json") as fd:
            read = parse_row(os.pread(fd, MAX_NUMBERS_BYTES, 0))
    except FileNotFoundError:
        return None
    if read is None:
        return None
    return {
        "name": name,
        "windows": to_count(read.get("windows")),
        "context": to_count(read.get("context")),
        "decodes_observations": read.get("decodes_observations") is True,
        "errors": _errors(read.get("errors")),
    }


def _errors(value: Any) -> dict[str, dict[str, list[float | None]]]:
    errors: dict[str, dict[str, list[float | None]]] = {}
    for kind in KINDS:
        columns = value.get(kind) if isinstance(value, dict) else None
        if isinstance(columns, dict) and all(isinstance(columns.get(p), list) for p in PREDICTORS):
            errors[kind] = {p: [to_number(n) for n in columns[p][:MAX_HORIZON]] for p in PREDICTORS}
    return errors
