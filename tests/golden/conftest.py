"""`pytest tests/golden --fixtures DIR`: golden numbers from any folder laid out like ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

_PROCESSOR = Path("/proc/cpuinfo")
if not (_PROCESSOR.is_file() and "GenuineIntel" in _PROCESSOR.read_text()):
    # Where a gradient is nearly zero, Adam makes a step of what kernels round differently. On
    # Intel's processors the mode of MKL that tests/conftest.py sets agrees with the recording; on
    # others that is not to be had, but this one, the same on every processor, agrees. MKL reads it
    # at its first product, which comes after the collection.
    os.environ["MKL_CBWR"] = "COMPATIBLE"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the name `--fixtures` over from pytest's own listing (which stays as `--funcargs`)."""
    own = parser.optparser._option_string_actions.pop("--fixtures")
    own.option_strings.remove("--fixtures")
    parser.addoption(
        "--fixtures", dest="fixtures_dir", default=None, help="folder with golden files"
    )


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The numbers were recorded on one thread."""
    torch.set_num_threads(1)
