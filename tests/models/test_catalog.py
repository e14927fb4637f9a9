"""The catalogue: order, entries, aliases, look-up."""

from __future__ import annotations

import re

import pytest

from worldflux.errors import ConfigurationError, ModelNotFoundError
from worldflux.models.catalog import (
    MODEL_ALIASES,
    MODEL_CATALOG,
    default_config,
    get_model_info,
    list_models,
    resolve,
)
from worldflux.models.registry import our_families

SUPPORTED = [
    "dreamer:ci",
    *(f"dreamerv3:size{n}m" for n in (12, 25, 50, 100, 200)),
    *(f"tdmpc2:{name}" for name in ("5m", "5m_legacy", "ci", "19m", "48m", "317m")),
]
EXACT = [
    *(f"dreamerv3:official_{n}m" for n in (12, 25, 50, 100, 200, 400)),
    *(f"tdmpc2:official_{n}m" for n in (1, 5, 19, 48, 317)),
    "tdmpc2:laptop",
    "dreamerv3:laptop",
    "dreamerv3:official_1m",
    "r2dreamer:laptop",
    *(f"r2dreamer:official_{n}m" for n in (1, 12, 25, 50, 100, 200, 400)),
    *(f"bmpc:{name}" for name in ("official_5m", "laptop", "ci")),
]


def test_surfaces_are_listed_in_the_documented_order() -> None:
    assert list_models() == SUPPORTED
    public = [*SUPPORTED]
    public.insert(public.index("dreamerv3:size200m") + 1, "dreamerv3:official_xl")
    public.insert(public.index("tdmpc2:5m") + 1, "tdmpc2:proof_5m")
    assert list_models(surface="public") == [*public, *EXACT]
    assert list_models(surface="all") == list_models(surface="public")


def test_verbose_entries_are_complete_and_nothing_is_hollow() -> None:
    entries = list_models(verbose=True, surface="all")
    for name, entry in entries.items():
        assert set(entry) >= {
            "description", "params", "parameters", "type", "default_obs",
            "maturity", "support_tier", "parity_role",
        }  # fmt: skip
        assert entry["type"] in our_families()
        assert entry["default_obs"] == ("image" if entry["type"] == "dreamer" else "vector")
        assert entry["parameters"] > 10_000
        config = default_config(name)
        assert config.model_name in (name, name.partition(":")[2])
        assert name.startswith("r2") == (getattr(config, "representation", "") == "barlow")


def test_parity_roles() -> None:
    roles = {name: entry["parity_role"] for name, entry in MODEL_CATALOG.items()}
    assert {n for n, role in roles.items() if role == "ci_only"} == {
        "dreamer:ci",
        "tdmpc2:ci",
        "bmpc:ci",
    }
    proof = {n for n, role in roles.items() if role == "proof_canonical"}
    assert proof == {"dreamerv3:official_xl", "tdmpc2:proof_5m", "bmpc:official_5m"}


def test_maturity_filters() -> None:
    assert list_models(maturity="reference") == SUPPORTED
    assert list_models(maturity="skeleton", surface="all") == []


@pytest.mark.parametrize("wrong", [{"surface": "publik"}, {"maturity": "referense"}])
def test_unknown_filters_list_the_values(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        list_models(**wrong)
    assert all(word in str(caught.value) for word in ("the values are", "did you mean"))


@pytest.mark.parametrize(
    ("wrong", "near"), [("r2dreamer:ci", "r2dreamer:laptop"), ("bmpc:5m", "bmpc:official_5m")]
)
def test_presets_of_the_same_agent_are_proposed(wrong: str, near: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(wrong)
    agent = wrong.partition(":")[0]
    proposed = re.findall("'(.*?)'", str(caught.value.hint))
    assert near in proposed
    assert all(name.startswith(f"{agent}:") for name in proposed)


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        *MODEL_ALIASES.items(),
        ("DreamerV3", "dreamerv3:size12m"),
        ("TDMPC2:CI", "tdmpc2:ci"),
        ("dreamerv3:ci", "dreamer:ci"),
        ("dreamer:size50m", "dreamerv3:size50m"),
        ("dreamer:official", "dreamerv3:official_xl"),
        ("R2Dreamer:Laptop", "r2dreamer:laptop"),
        ("tdmpc:48m", "tdmpc2:48m"),
        ("tdmpc:proof", "tdmpc2:proof_5m"),
    ],
)
def test_names_resolve(name: str, model_id: str) -> None:
    assert resolve(name) == model_id
    assert get_model_info(name)["model_id"] == model_id


def test_model_info_names_the_alias() -> None:
    assert get_model_info("tdmpc2:ci")["alias"] is None
    info = get_model_info("TDMPC-Large")
    assert (info["model_id"], info["alias"]) == ("tdmpc2:317m", "tdmpc-large")
    assert info["parameters"] == 56_068_714


@pytest.mark.parametrize(
    "name", ["", "tdmpk", "tdmpc2:6m", "r2dreamer:ci", "dreamerv4", "tdmpc2:", ":", "vjepa"]
)
def test_unknown_models_get_the_nearest_names(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(name)
    assert isinstance(caught.value, ValueError)
    assert caught.value.hint


def test_nearest_name() -> None:
    with pytest.raises(ModelNotFoundError, match="'tdmpc2:5m'"):
        resolve("tdmpc2:6m")
