"""worldflux: world models for reinforcement learning in one tool.

    from worldflux import create_world_model, TDMPC2Config

Every name is imported on first use: `import worldflux` imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_names
from .models import FAMILY_CLASSES

if TYPE_CHECKING:
    from .acting.agent import Agent
    from .acting.load import load_agent
    from .acting.train import train
    from .backends.program import OfficialBackendHandle
    from .core.batch import Batch
    from .core.components import (
        ActionConditioner,
        Decoder,
        DynamicsModel,
        ObservationEncoder,
        RolloutExecutor,
    )
    from .core.config import DynamicsType, LatentType, WorldModelConfig
    from .core.learning import set_seed
    from .core.outputs import LossOutput, ModelOutput, Trajectory
    from .core.payloads import ActionPayload, ActionSequence, ConditionPayload, WorldModelInput
    from .core.specs import (
        ActionSpec,
        Capability,
        ModalitySpec,
        PredictionSpec,
        SequenceLayout,
        StateSpec,
    )
    from .core.state import State
    from .core.world_model import WorldModel
    from .errors import (
        CapabilityError,
        CheckpointError,
        ConfigurationError,
        EnvironmentFault,
        EnvironmentSetupError,
        ExportError,
        LostProcessError,
        MissingDependencyError,
        ModelNotFoundError,
        NonFiniteError,
        RunFolderError,
        ShapeMismatchError,
        StateError,
        StorageError,
        TrainingError,
        VerificationError,
        WorldFluxError,
    )
    from .factory import create_world_model, get_config
    from .models import (
        BMPCConfig,
        BMPCWorldModel,
        DreamerV3Config,
        DreamerV3WorldModel,
        TDMPC2Config,
        TDMPC2WorldModel,
    )
    from .models.catalog import MODEL_ALIASES, MODEL_CATALOG, get_model_info, list_models

__version__ = "0.2.0"

# Module -> its public names.
_MODULES = {
    "acting.agent": "Agent",
    "acting.load": "load_agent",
    "acting.train": "train",
    "backends.program": "OfficialBackendHandle",
    "core.batch": "Batch",
    "core.components": "ActionConditioner Decoder DynamicsModel ObservationEncoder RolloutExecutor",
    "core.config": "DynamicsType LatentType WorldModelConfig",
    "core.learning": "set_seed",
    "core.outputs": "LossOutput ModelOutput Trajectory",
    "core.payloads": "ActionPayload ActionSequence ConditionPayload WorldModelInput",
    "core.specs": "ActionSpec Capability ModalitySpec PredictionSpec SequenceLayout StateSpec",
    "core.state": "State",
    "core.world_model": "WorldModel",
    "errors": "CapabilityError CheckpointError ConfigurationError EnvironmentFault "
    "EnvironmentSetupError ExportError LostProcessError MissingDependencyError "
    "ModelNotFoundError NonFiniteError "
    "RunFolderError ShapeMismatchError StateError StorageError TrainingError VerificationError "
    "WorldFluxError",
    "factory": "create_world_model get_config",
    "models.catalog": "MODEL_ALIASES MODEL_CATALOG get_model_info list_models",
}
_NAMES = {
    **{name: f"worldflux.{room}" for room, names in _MODULES.items() for name in names.split()},
    **FAMILY_CLASSES,
}
__getattr__ = lazy_names(__name__, _NAMES)
__all__ = ["__version__", *sorted(_NAMES)]


def __dir__() -> list[str]:
    return __all__
