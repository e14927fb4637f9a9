"""A checkpoint's calibration: `worldflux trust` writes it, what opens the checkpoint reads it."""

from __future__ import annotations

from pathlib import Path

from worldflux.errors import CapabilityError, CheckpointError
from worldflux.evaluation.trust import Calibration
from worldflux.layout import TRUST_FILE
from worldflux.training.checkpoints import MANIFEST, add_state, read_manifest, read_state


def save_calibration(checkpoint: Path, calibration: Calibration) -> None:
    """Write it into the checkpoint's folder, hashed in the checkpoint's manifest."""
    add_state(checkpoint, TRUST_FILE, calibration.to_state())


def calibration_of(checkpoint: Path | None) -> Calibration | None:
    """The calibration in a checkpoint's folder; None where there is none."""
    if checkpoint is None or not (checkpoint / MANIFEST).is_file():
        return None
    if TRUST_FILE not in read_manifest(checkpoint)["files"]:
        return None
    try:
        return Calibration.of_state(read_state(checkpoint / TRUST_FILE))
    except (TypeError, KeyError, AttributeError):
        where = str(checkpoint / TRUST_FILE)
        raise CheckpointError("the calibration is damaged", where=where) from None


def require_calibration(checkpoint: Path | None) -> Calibration:
    """The calibration of a checkpoint, or CapabilityError with the command that makes it."""
    found = calibration_of(checkpoint)
    if found is None:
        raise CapabilityError(
            "how far this model can be trusted was never measured: its checkpoint has no "
            "calibration",
            where=None if checkpoint is None else str(checkpoint),
            hint=calibrating(checkpoint),
        )
    return found


def calibrating(checkpoint: Path | None) -> str:
    """The command that calibrates this checkpoint."""
    if checkpoint is None:
        return "worldflux trust RUN, then open the run"
    return f"worldflux trust {checkpoint.parent.parent} --checkpoint {checkpoint.name}"
