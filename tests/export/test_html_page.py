"""The page of an exported agent in a real headless Chromium: it acts and dreams as the agent does.

Needs node, Debian's chromium and chromium-driver, and selenium; without them the tests are skipped.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chromium import problems, text_of

from worldflux import create_world_model, load_agent
from worldflux.export.certificate import export_agent


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that remembers, with weights that are not those of the start."""
    folder = tmp_path_factory.mktemp("remembers")
    torch.manual_seed(0)
    model = create_world_model("dreamerv3:ci", obs_shape=(4,), action_dim=2, action_type="discrete")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def opened(saved: Path, driver: Any) -> Any:
    """The page of that model."""
    if shutil.which("node") is None:
        pytest.skip("no node, which an export to HTML is checked with")
    file, certificate = export_agent(str(saved), "html", states=100)
    assert certificate["largest_difference"] < 1e-5
    driver.get(file.as_uri())
    return driver


def test_the_page_acts_and_dreams_as_the_agent(opened: Any, saved: Path) -> None:
    observations = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    agent = load_agent(str(saved))
    expected = [agent.act(observation) for observation in observations]
    rows = np.eye(2)[np.arange(15) % 2]
    dream = agent.imagine(rows.argmax(-1))
    script = """
        const agent = new Agent();
        const actions = arguments[0].map((observation) => agent.step(observation)[0]);
        const dream = agent.dream();
        const steps = [dream.now, ...arguments[1].map((row) => dream.step(row))];
        const column = (name) => steps.map((seen) => [...seen[`predicted_${name}`]]);
        return [actions, column("reward"), column("value"), column("obs")];"""
    actions, *found = opened.execute_script(script, observations.tolist(), rows.tolist())
    assert 0 < np.mean(actions) < 1
    assert actions == expected
    rewards, values, seen = map(np.array, found)
    scale = max(1.0, float(np.abs(dream.values).max()))
    np.testing.assert_allclose(rewards[1:], dream.rewards, atol=1e-5 * scale, rtol=1e-4)
    np.testing.assert_allclose(values, dream.values, atol=1e-5 * scale, rtol=1e-4)
    np.testing.assert_allclose(seen, dream.observations["obs"][:, 0], atol=1e-5)


def test_a_visitor_plays_the_episode_and_the_dream(opened: Any, wait_until: Any) -> None:
    opened.execute_script("document.getElementById('play').click()")
    wait_until(lambda: int(text_of(opened, "#step-value").split()[0]) > 3)
    opened.execute_script("document.getElementById('dream').click()")
    wait_until(lambda: "steps dreamt" in text_of(opened, "#dream-note"))
    opened.execute_script(
        "const slider = document.querySelector('#sees input'); slider.value = slider.max;"
        "slider.dispatchEvent(new Event('input'))"
    )
    assert "steps dreamt" not in text_of(opened, "#dream-note")
    assert opened.execute_script("return !document.getElementById('as-recorded').hidden")
    assert len(opened.find_elements("css selector", "#charts figure")) == 8
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= 360
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert problems(opened) == []
