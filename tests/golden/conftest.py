"""`pytest tests/golden --fixtures DIR`: golden numbers from any folder laid out like ours."""

from __future__ import annotations

import os

import pytest
import torch

if torch.backends.cpu.get_cpu_capability() != "AVX512":
    # The numbers were recorded with AVX-512. Where a gradient is nearly zero, Adam makes a step of
    # what other kernels round differently; this mode of MKL, the same on every processor, agrees
    # with the recording. MKL reads it at its first product, which comes after the collection.
    os.environ.setdefault("MKL_CBWR", "COMPATIBLE")


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
