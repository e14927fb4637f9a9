"""`worldflux models`: readable at 80 columns, one JSON object on demand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from worldflux import create_world_model
from worldflux.models.catalog import list_models
from worldflux.project.answers import WELL_KNOWN, default_model

from .conftest import Command


@pytest.mark.parametrize("surface", ["supported", "public", "all"])
@pytest.mark.parametrize("flags", [[], ["--verbose"]])
def test_ids_are_whole_and_lines_fit(surface: str, flags: list[str], worldflux: Command) -> None:
    done = worldflux("models", "list", "--surface", surface, *flags)
    assert done.returncode == 0
    listed = done.stdout.split("\n\n")[0 if flags else 1]  # below the ones that init picks
    lines = listed.splitlines()
    assert max(map(len, done.stdout.splitlines())) <= 80
    first_words = [line.split()[0] for line in lines if not line.startswith(" ")]
    ids = [word for word in first_words if word != "MODEL"]
    assert ids == list_models(surface=surface)


def test_the_list_says_what_it_leaves_out(worldflux: Command) -> None:
    hidden = len(list_models(surface="public")) - len(list_models(surface="supported"))
    more = f"{hidden} more, of bmpc, dreamerv3, r2dreamer, tdmpc2:"
    command = "worldflux models list --surface public"
    assert worldflux("models", "list").stdout.endswith(f"\n\n{more}\n  {command}\n")
    assert " more, of " not in worldflux(*command.split()[1:]).stdout


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


def test_what_is_compared_was_measured(worldflux: Command) -> None:
    results = Path(__file__).parents[2] / "docs" / "results.md"
    lines = [line for line in results.read_text().splitlines() if line.startswith("#")]
    headings = {re.sub(r"[^\w -]", "", h.lstrip("# ").lower()).replace(" ", "-") for h in lines}
    rows = json.loads(worldflux("models", "compare", "--json").stdout)
    presets = list_models(surface="all")
    for row in rows["learned"] + rows["costs"]:
        assert row["model"] in presets
        assert row["section"] in headings
    done = worldflux(
        "models", "compare", "--actions", "discrete", "--device", "cpu", "--minutes", "14"
    )
    learned, costs = done.stdout.split("\n\n")[:2]
    assert learned.splitlines()[1].split()[:2] == ["dreamerv3:laptop", "CartPole-v1"]
    assert len(learned.splitlines()) == 2  # Catch took 15 and 16
    assert "tdmpc2" not in done.stdout
    assert "gpu" not in costs
    assert max(map(len, done.stdout.splitlines())) <= 80
    refused = worldflux("models", "compare", "--device", "tpu")
    assert refused.returncode == 2
    assert "cpu or gpu" in refused.stderr


def test_maturity_without_models(worldflux: Command) -> None:
    done = worldflux("models", "list", "--maturity", "skeleton")
    assert done.returncode == 0
    assert done.stdout.endswith("\n\nno model has this maturity on this surface\n")


def test_those_that_init_picks_stand_first_with_their_use(worldflux: Command) -> None:
    lines = worldflux("models", "list").stdout.splitlines()
    assert lines[0] == "worldflux init picks:"
    ids = [line.split()[0] for line in lines[1 : lines.index("")]]
    environments = [
        *WELL_KNOWN,
        "Hopper-v5",
        "MiniGrid-Empty-5x5-v0",
        "dm_control/cup-catch-v0",
        "ALE/Pong-v5",
    ]
    assert set(ids) == {default_model(environment) for environment in environments}
    assert next(line for line in lines if "tdmpc2:laptop" in line).endswith(
        "DeepMind Control on CPU"
    )
    listing = json.loads(worldflux("models", "list", "--json").stdout)
    assert list(listing["picked_by_init"]) == ids


@pytest.mark.parametrize("flag", ["--surface", "--maturity"])
def test_unknown_filters_list_the_values(flag: str, worldflux: Command) -> None:
    done = worldflux("models", "list", flag, "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the values are" in done.stderr


def test_info_prints_the_configuration(worldflux: Command) -> None:
    done = worldflux("models", "info", "DREAMER-CI")
    assert done.stdout.startswith("dreamer:ci (alias dreamer-ci)\n")
    assert "    stoch_classes = 4\n" in done.stdout
    scales = worldflux("models", "info", "r2dreamer:laptop").stdout.partition("loss_scales = ")[2]
    assert json.loads(scales.splitlines()[0])["barlow"] == 0.05  # not in the preset: the recipe's


def test_an_official_checkpoint_goes_in_and_out(tmp_path: Path, worldflux: Command) -> None:
    model = create_world_model("tdmpc2:official_1m", obs_shape=(4,), action_dim=2)
    model.save_pretrained(tmp_path / "saved")
    done = worldflux("models", "export", "saved", "--to", "official.pt")
    assert (done.returncode, done.stdout) == (0, "official.pt\n"), done.stderr
    arguments = ["models", "import", "official.pt", "--family", "tdmpc2", "--to", "again"]
    done = worldflux(*arguments, "--set", "horizon=4")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("again: tdmpc2 with 1,")
    again = create_world_model(tmp_path / "again")
    assert again.config.horizon == 4
    obs = torch.zeros(1, 4)
    first, second = (m.encode(obs).tensors["latent"] for m in (model, again))
    assert torch.equal(first, second)
    for name in ("file", "directory", "content"):
        done = worldflux(*arguments[:-1], "other", "--set", f"{name}=x")
        assert f"no field '{name}'" in done.stderr
        assert done.returncode == 2
    for repeated in (arguments, ["models", "export", "saved", "--to", "official.pt"]):
        assert worldflux(*repeated).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["import", "no.pt", "--family", "tdmpc2", "--to", "new"], 1, "no regular file here"),
        (["import", "no.npz", "--family", "dreamerv3", "--to", "new"], 1, "no npz file"),
        (["import", "no.pt", "--family", "tdmpc", "--to", "new"], 2, "did you mean 'tdmpc2'"),
        (
            ["import", "no.pt", "--family", "tdmpc2", "--to", "new", "--set", "x"],
            2,
            "not a section.key=value assignment",
        ),
        (["export", "nothing", "--to", "file.pt"], 2, "this path does not exist"),
    ],
)
def test_what_cannot_go_in_or_out_is_told(
    arguments: list[str], code: int, words: str, tmp_path: Path, worldflux: Command
) -> None:
    done = worldflux("models", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_dreamer_is_not_exported(tmp_path: Path, worldflux: Command) -> None:
    create_world_model("dreamer:ci", obs_shape=(4,), action_dim=2).save_pretrained(
        tmp_path / "saved"
    )
    done = worldflux("models", "export", "saved", "--to", "official.pt")
    assert done.returncode == 1
    assert "cannot be exported" in done.stderr
