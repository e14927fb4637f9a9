"""The catalogue of model presets and their aliases, as data, and the look-up in it. No torch."""

from __future__ import annotations

from typing import Any, Literal, overload

from worldflux.core.config import DreamerV3Config, TDMPC2Config, WorldModelConfig
from worldflux.errors import ConfigurationError, ModelNotFoundError, did_you_mean

from .parameter_count import count_parameters

SURFACES = ("supported", "public", "all")
MATURITIES = ("reference", "experimental", "skeleton")
FAMILIES: dict[str, type[WorldModelConfig]] = {"dreamer": DreamerV3Config, "tdmpc2": TDMPC2Config}


def _entry(family: str, params: str, description: str, tier: str, role: str) -> dict[str, str]:
    return {
        "description": description,
        "params": params,
        "type": family,
        "default_obs": "image" if family == "dreamer" else "vector",
        "maturity": "reference",
        "support_tier": tier,
        "parity_role": role,
    }


def _dreamer(
    params: str, description: str, tier: str = "supported", role: str = "reference_family"
) -> dict[str, str]:
    return _entry("dreamer", params, f"DreamerV3, {description}", tier, role)


def _tdmpc2(
    params: str, description: str, tier: str = "supported", role: str = "reference_family"
) -> dict[str, str]:
    return _entry("tdmpc2", params, f"TD-MPC2, {description}", tier, role)


_QUICK = "small, for quick runs and checks"
_SIZE = "documented dimensions"
_EXACT = "exact official size and recipe"

# The order is the order of every listing.
MODEL_CATALOG: dict[str, dict[str, str]] = {
    "dreamer:ci": _dreamer("~0.1M", _QUICK, role="ci_only"),
    "dreamerv3:size12m": _dreamer("~12M", _SIZE),
    "dreamerv3:size25m": _dreamer("~25M", _SIZE),
    "dreamerv3:size50m": _dreamer("~50M", _SIZE),
    "dreamerv3:size100m": _dreamer("~100M", _SIZE),
    "dreamerv3:size200m": _dreamer("~200M", _SIZE),
    "dreamerv3:official_xl": _dreamer(
        "~200-300M", "the official default agent, for parity proof", "advanced", "proof_canonical"
    ),
    "tdmpc2:5m": _tdmpc2("~5M", "documented defaults"),
    "tdmpc2:proof_5m": _tdmpc2(
        "~5M", "official algorithm settings, for parity proof", "advanced", "proof_canonical"
    ),
    "tdmpc2:5m_legacy": _tdmpc2("~5M", "legacy compatibility"),
    "tdmpc2:ci": _tdmpc2("~0.1M", _QUICK, role="ci_only"),
    "tdmpc2:19m": _tdmpc2("~19M", _SIZE),
    "tdmpc2:48m": _tdmpc2("~48M", _SIZE),
    "tdmpc2:317m": _tdmpc2("~317M", _SIZE),
    "dreamerv3:official_12m": _dreamer("~12M", _EXACT, "advanced"),
    "dreamerv3:official_25m": _dreamer("~25M", _EXACT, "advanced"),
    "dreamerv3:official_50m": _dreamer("~50M", _EXACT, "advanced"),
    "dreamerv3:official_100m": _dreamer("~100M", _EXACT, "advanced"),
    "dreamerv3:official_200m": _dreamer("~200M", _EXACT, "advanced"),
    "dreamerv3:official_400m": _dreamer("~400M", _EXACT, "advanced"),
    "tdmpc2:official_1m": _tdmpc2("~1M", _EXACT, "advanced"),
    "tdmpc2:official_5m": _tdmpc2("~5M", _EXACT, "advanced"),
    "tdmpc2:official_19m": _tdmpc2("~19M", _EXACT, "advanced"),
    "tdmpc2:official_48m": _tdmpc2("~48M", _EXACT, "advanced"),
    "tdmpc2:official_317m": _tdmpc2("~317M", _EXACT, "advanced"),
    "tdmpc2:laptop": _tdmpc2("~0.3M", "learns control tasks on a laptop's CPU", "advanced"),
    "dreamerv3:laptop": _dreamer("~0.4M", "learns small tasks on a laptop's CPU", "advanced"),
    "dreamerv3:official_1m": _dreamer("~0.7M", _EXACT, "advanced"),
}

MODEL_ALIASES: dict[str, str] = {
    "dreamer": "dreamerv3:size12m",
    "dreamerv3": "dreamerv3:size12m",
    "dreamer-ci": "dreamer:ci",
    "dreamer-small": "dreamerv3:size12m",
    "dreamer-medium": "dreamerv3:size50m",
    "dreamer-large": "dreamerv3:size200m",
    "dreamerv3:official": "dreamerv3:official_xl",
    "tdmpc": "tdmpc2:5m",
    "tdmpc2": "tdmpc2:5m",
    "tdmpc2-ci": "tdmpc2:ci",
    "tdmpc-small": "tdmpc2:5m",
    "tdmpc-medium": "tdmpc2:48m",
    "tdmpc-large": "tdmpc2:317m",
    "tdmpc-proof": "tdmpc2:proof_5m",
    "tdmpc2:proof": "tdmpc2:proof_5m",
    "tdmpc-legacy": "tdmpc2:5m_legacy",
}

_PREFIXES = {"dreamer": ("dreamer", "dreamerv3"), "tdmpc": ("tdmpc2",), "tdmpc2": ("tdmpc2",)}
_PREFIXES["dreamerv3"] = _PREFIXES["dreamer"]


def resolve(model: str) -> str:
    """The catalogue id that a name stands for: an id, an alias or a family's other prefix.

    Case does not matter; `dreamerv3:ci` is `dreamer:ci` and `tdmpc:5m` is `tdmpc2:5m`.

    Raises:
        ModelNotFoundError: with the nearest names.
    """
    name = model.strip().lower()
    if name in MODEL_CATALOG:
        return name
    if name in MODEL_ALIASES:
        return MODEL_ALIASES[name]
    prefix, colon, size = name.partition(":")
    for candidate in _PREFIXES.get(prefix, ()) if colon else ():
        for key in (f"{candidate}:{size}", MODEL_ALIASES.get(f"{candidate}:{size}", "")):
            if key in MODEL_CATALOG:
                return key
    raise ModelNotFoundError(
        f"there is no model {model!r}",
        hint=did_you_mean(name, [*MODEL_CATALOG, *MODEL_ALIASES])
        or "worldflux models list --surface all prints every model",
    )


def default_config(model: str, **overrides: Any) -> WorldModelConfig:
    """The configuration of a preset, with the family's documented default observation.

    Raises:
        ModelNotFoundError: for an unknown model.
        ConfigurationError: for an override that the family does not know or allow.
    """
    model_id = resolve(model)
    family = FAMILIES[MODEL_CATALOG[model_id]["type"]]
    return family.from_size(model_id.partition(":")[2], **overrides)


def get_model_info(model: str) -> dict[str, Any]:
    """The catalogue entry of an id or alias, with `model_id` and `alias` (None for an id)."""
    model_id = resolve(model)
    name = model.strip().lower()
    alias = None if name == model_id else name
    return {"model_id": model_id, "alias": alias, **_with_count(model_id)}


def _with_count(model_id: str) -> dict[str, Any]:
    return {**MODEL_CATALOG[model_id], "parameters": count_parameters(default_config(model_id))}


@overload
def list_models(
    verbose: Literal[False] = False, maturity: str | None = None, surface: str = "supported"
) -> list[str]: ...


@overload
def list_models(
    verbose: Literal[True], maturity: str | None = None, surface: str = "supported"
) -> dict[str, dict[str, Any]]: ...


def list_models(
    verbose: bool = False, maturity: str | None = None, surface: str = "supported"
) -> list[str] | dict[str, dict[str, Any]]:
    """The presets of a surface, as names or, when `verbose`, with their entries.

    Args:
        verbose: names only, or a dict of entries with the true parameter count.
        maturity: keep only "reference", "experimental" or "skeleton".
        surface: "supported", "public" (adds the proof and official presets) or "all".

    Raises:
        ConfigurationError: for an unknown surface or maturity, listing the values.
    """
    if surface not in SURFACES:
        raise _unknown("surface", surface, SURFACES)
    if maturity is not None and maturity not in MATURITIES:
        raise _unknown("maturity", maturity, MATURITIES)
    tiers = {"supported"} if surface == "supported" else {"supported", "advanced"}
    names = [
        model_id
        for model_id, entry in MODEL_CATALOG.items()
        if (surface == "all" or entry["support_tier"] in tiers)
        and maturity in (None, entry["maturity"])
    ]
    return {name: _with_count(name) for name in names} if verbose else names


def _unknown(what: str, value: str, allowed: tuple[str, ...]) -> ConfigurationError:
    return ConfigurationError(
        f"there is no {what} {value!r}: the values are {', '.join(allowed)}",
        hint=did_you_mean(str(value), allowed),
    )
