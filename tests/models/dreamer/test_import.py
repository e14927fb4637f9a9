"""What is made when the family is imported does not depend on torch's defaults at that moment."""

from __future__ import annotations

import runpy
import warnings

import torch


def test_a_norm_acts_on_the_cpu_where_it_was_imported_for_another_device() -> None:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it is imported already
        made = runpy.run_module("worldflux.models.dreamerv3.layers")
    norm = made["RMSNorm"](4)
    with torch.inference_mode():
        assert norm(torch.ones(2, 4)).sub(1).abs().max() < 1e-3
