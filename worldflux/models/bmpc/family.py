"""BMPC as seen from outside: its row in the registry. What it can do, and what it refuses, is as in
TD-MPC2. No torch."""

from __future__ import annotations

from worldflux.models.registry import Family, Preset, attribute

from .config import BMPCConfig

FAMILY = Family(
    name="bmpc",
    title="BMPC",
    config_class=BMPCConfig,
    load_model=lambda: attribute("worldflux.models.bmpc.world_model:BMPCWorldModel"),
    presets={
        "bmpc:official_5m": Preset(
            "~5M", 3_211_579, "BMPC, exact official size and recipe, for parity proof",
            "advanced", "proof_canonical", rank=4,
        ),
        "bmpc:laptop": Preset(
            "~0.3M", 248_763, "BMPC, learns control tasks on a laptop's CPU", "advanced", rank=4
        ),
        "bmpc:ci": Preset(
            "~0.1M", 25_563, "BMPC, small, for quick runs and checks", "advanced", "ci_only", rank=4
        ),
    },
    aliases={"bmpc": "bmpc:laptop", "bmpc-ci": "bmpc:ci", "bmpc-proof": "bmpc:official_5m"},
    prefixes=("bmpc",),
    action_types=("continuous",),
    episodic_key="episodic",
)  # fmt: skip
