"""`worldflux models`: readable at 80 columns, one JSON object on demand."""

from __future__ import annotations

import json

import pytest

from worldflux.models.catalog import list_models

from .conftest import Command


@pytest.mark.parametrize("surface", ["supported", "public", "all"])
@pytest.mark.parametrize("flags", [[], ["--verbose"]])
def test_ids_are_whole_and_lines_fit(surface: str, flags: list[str], worldflux: Command) -> None:
    done = worldflux("models", "list", "--surface", surface, *flags)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    first_words = [line.split()[0] for line in lines if not line.startswith(" ")]
    ids = [word for word in first_words if word != "MODEL"]
    assert ids == list_models(surface=surface)


def test_the_true_counts_stand_beside_the_labels(worldflux: Command) -> None:
    lines = worldflux("models", "list").stdout.splitlines()
    row = next(line for line in lines if line.startswith("tdmpc2:5m "))
    assert row.split() == ["tdmpc2:5m", "~5M", "1,373,802", "vector", "supported"]


def test_json_is_one_object(worldflux: Command) -> None:
    done = worldflux("models", "list", "--surface", "public", "--json")
    content = json.loads(done.stdout)
    assert done.stderr == ""
    assert content["surface"] == "public"
    assert content["models"] == list_models(verbose=True, surface="public")
    content = json.loads(worldflux("models", "info", "tdmpc", "--json").stdout)
    assert (content["model_id"], content["config"]["latent_dim"]) == ("tdmpc2:5m", 256)


def test_maturity_without_models(worldflux: Command) -> None:
    done = worldflux("models", "list", "--maturity", "skeleton")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)


@pytest.mark.parametrize("flag", ["--surface", "--maturity"])
def test_unknown_filters_list_the_values(flag: str, worldflux: Command) -> None:
    done = worldflux("models", "list", flag, "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the values are" in done.stderr


def test_info_prints_the_configuration(worldflux: Command) -> None:
    done = worldflux("models", "info", "DREAMER-CI")
    assert done.stdout.startswith("dreamer:ci (alias dreamer-ci)\n")
    assert "    stoch_classes = 4\n" in done.stdout
