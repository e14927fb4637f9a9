"""The catalogue of model presets and their aliases, and the look-up in it. No torch."""

from __future__ import annotations

from typing import Any, Literal, overload

from worldflux.core.config import WorldModelConfig
from worldflux.errors import ConfigurationError, ModelNotFoundError, did_you_mean

from .registry import Family, families, family_of, our_families, outside_family

SURFACES = ("supported", "public", "all")
MATURITIES = ("reference", "experimental", "skeleton")
_TIERS = {"supported": ("supported",), "public": ("supported", "advanced")}


def _rows(known: dict[str, Family]) -> dict[str, dict[str, str]]:
    """Catalogue id -> entry, in the order of every listing."""
    listed = [(row, name, preset) for row in known.values() for name, preset in row.presets.items()]
    return {
        name: {
            "description": preset.description,
            "params": preset.params,
            "type": row.name,
            "default_obs": row.observation,
            "maturity": row.maturity,
            "support_tier": preset.tier,
            "parity_role": preset.role,
        }
        for row, name, preset in sorted(listed, key=lambda one: one[2].rank)
    }


MODEL_CATALOG: dict[str, dict[str, str]] = _rows(our_families())
# What `models import --family` takes -> the kind of file.
IMPORTED = {row.import_name: row.import_files for row in our_families().values() if row.importer}
MODEL_ALIASES: dict[str, str] = {
    alias: model_id for row in our_families().values() for alias, model_id in row.aliases.items()
}


def resolve(model: str) -> str:
    """The catalogue id of a name: an id, an alias or a family's other prefix.

    Case does not matter; `dreamerv3:ci` is `dreamer:ci` and `tdmpc:5m` is `tdmpc2:5m`. A family
    of an installed package is found by its name, with one of its presets or without.

    Raises:
        ModelNotFoundError: with the nearest names.
    """
    name = model.strip().lower()
    if name in MODEL_CATALOG:
        return name
    if name in MODEL_ALIASES:
        return MODEL_ALIASES[name]
    prefix, colon, size = name.partition(":")
    for row in our_families().values():
        for candidate in row.prefixes if colon and prefix in row.prefixes else ():
            for key in (f"{candidate}:{size}", MODEL_ALIASES.get(f"{candidate}:{size}", "")):
                if key in MODEL_CATALOG:
                    return key
    outside = outside_family(prefix)
    if outside is not None and (not colon or name in outside.presets):
        return name
    known = [*MODEL_CATALOG, *MODEL_ALIASES, *(outside.presets if outside else ())]
    same_agent = [model_id for model_id in MODEL_CATALOG if model_id.startswith(f"{prefix}:")]
    raise ModelNotFoundError(
        f"there is no model {model!r}",
        hint=did_you_mean(name, same_agent)
        or did_you_mean(name, known)
        or "worldflux models list --surface all prints every model",
    )


def family_of_model(model: str) -> Family:
    """The family of a preset, an alias or the name of an installed family."""
    model_id = resolve(model)
    if model_id in MODEL_CATALOG:
        return our_families()[MODEL_CATALOG[model_id]["type"]]
    row = outside_family(model_id.partition(":")[0])
    assert row is not None, f"{model_id} was found and is gone"
    return row


def default_config(model: str, **overrides: Any) -> WorldModelConfig:
    """The configuration of a preset, with the family's documented default observation."""
    config_class = family_of_model(model).config_class
    size = preset_name(resolve(model))
    return config_class.from_size(size, **overrides) if size else config_class(**overrides)


def preset_name(model_id: str) -> str:
    """What the family calls a preset: the part after the colon, or the whole id if it says so."""
    whole = model_id in family_of_model(model_id).config_class.PRESETS
    return model_id if whole else model_id.partition(":")[2]


def count_parameters(config: WorldModelConfig) -> int:
    """Learnable parameters of the model that `config` describes, built without memory."""
    import torch

    from worldflux.core.learning import learned_count

    build = family_of(config).load_model()
    with torch.device("meta"):
        return learned_count(build(config))


def get_model_info(model: str) -> dict[str, Any]:
    """The catalogue entry of an id or alias, with `model_id` and `alias` (None for an id)."""
    model_id = resolve(model)
    name = model.strip().lower()
    alias = None if name == model_id else name
    return {"model_id": model_id, "alias": alias, **_with_count(model_id)}


def _with_count(model_id: str) -> dict[str, Any]:
    row = family_of_model(model_id)
    entry = _rows({row.name: row}).get(model_id)
    if entry is None:  # an installed family by its name alone
        entry = {**next(iter(_rows({row.name: row}).values()), {}), "type": row.name}
    preset = row.presets.get(model_id)
    count = preset.parameters if preset else None
    return {**entry, "parameters": count or count_parameters(default_config(model_id))}


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
        surface: "supported", "public" (adds the proof and official presets) or "all" (adds the
            families of installed packages).

    Raises:
        ConfigurationError: for an unknown surface or maturity, listing the values.
    """
    if surface not in SURFACES:
        raise _unknown("surface", surface, SURFACES)
    if maturity is not None and maturity not in MATURITIES:
        raise _unknown("maturity", maturity, MATURITIES)
    rows = _rows(families()) if surface == "all" else MODEL_CATALOG
    names = [
        model_id
        for model_id, entry in rows.items()
        if (surface == "all" or entry["support_tier"] in _TIERS[surface])
        and maturity in (None, entry["maturity"])
    ]
    return {name: _with_count(name) for name in names} if verbose else names


def _unknown(what: str, value: str, allowed: tuple[str, ...]) -> ConfigurationError:
    return ConfigurationError(
        f"there is no {what} {value!r}: the values are {', '.join(allowed)}",
        hint=did_you_mean(str(value), allowed),
    )
