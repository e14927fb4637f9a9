"""`import worldflux` is cheap, and every public name arrives on first use."""

from __future__ import annotations

import subprocess
import sys

import worldflux
import worldflux.training
from worldflux.training import callbacks

TIMED = """
import time
began = time.process_time()
import worldflux
taken = time.process_time() - began
import sys
heavy = {"torch", "numpy", "gymnasium", "safetensors", "huggingface_hub"} & sys.modules.keys()
print(taken, sorted(heavy))
"""


def test_importing_takes_less_than_50_ms_and_no_torch() -> None:
    """Processor time, the best of three: other work on the machine must not decide."""
    times = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", TIMED], capture_output=True, text=True, check=True, timeout=60
        )
        taken, _, heavy = done.stdout.partition(" ")
        assert heavy == "[]\n"
        times.append(float(taken))
    assert min(times) < 0.05


NAMES = """
create_world_model list_models get_model_info get_config MODEL_ALIASES MODEL_CATALOG WorldModel
WorldModelConfig DreamerV3Config TDMPC2Config LatentType DynamicsType State Batch ActionPayload
ActionSequence ConditionPayload WorldModelInput ModelOutput LossOutput Trajectory PredictionSpec
StateSpec SequenceLayout ModalitySpec ActionSpec Capability OfficialBackendHandle
DreamerV3WorldModel TDMPC2WorldModel set_seed ObservationEncoder ActionConditioner DynamicsModel
Decoder RolloutExecutor
"""
TRAINING = "Trainer TrainingConfig ReplayBuffer train JobHandle JobStatus"
CALLBACKS = "Callback CheckpointCallback LoggingCallback EarlyStoppingCallback ProgressCallback"


def test_every_name_of_the_contract_is_there() -> None:
    for module, names in (
        (worldflux, NAMES),
        (worldflux.training, TRAINING),
        (callbacks, CALLBACKS),
    ):
        for name in names.split():
            assert getattr(module, name) is not None
    errors = {
        name
        for name, value in vars(worldflux.errors).items()
        if isinstance(value, type) and issubclass(value, worldflux.WorldFluxError)
    }
    assert errors <= set(worldflux.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(worldflux, "create_world_models")
    assert set(worldflux.__all__) <= set(dir(worldflux))
