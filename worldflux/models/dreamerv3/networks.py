"""The feed-forward parts of DreamerV3: encoder, decoder, the heads that read features, and the
parts that offer them in the component slots.

Legend: D deter, S groups, C classes, E tokens, F features (deter and flattened stoch), A action.
Leading axes are free: every network maps `[..., in] -> [..., out]`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.config.base import TASK
from worldflux.core.outputs import ModelOutput, prediction_of
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.errors import ConfigurationError
from worldflux.nn import REGISTER, symexp, symlog

from .config import ActionPart, DreamerV3Config, ObservationKey
from .layers import BlockLinear, ConvDown, ConvUp, Dense, RMSNorm, linear, mlp
from .maths import (
    BoundedNormal,
    MeanSquared,
    OneHotCategorical,
    ScalarPrediction,
    SymexpTwohot,
    symexp_bins,
    unit_image,
)
from .rssm import Latent


@functools.cache
def module_name(key: str) -> str:
    """The name of an observation or action in a `ModuleDict`; what that refuses is escaped."""
    if key and "." not in key and key[0] != "~" and not hasattr(nn.ModuleDict(), key):
        return key
    return "~" + key.replace("%", "%25").replace(".", "%2E")


def _images_by_size(images: Sequence[ObservationKey]) -> list[list[ObservationKey]]:
    """The images of each height and width, sizes in the order of their first image."""
    groups: dict[tuple[int, ...], list[ObservationKey]] = {}
    for key in images:
        groups.setdefault(key.shape[1:], []).append(key)
    return list(groups.values())


def _channels(config: DreamerV3Config, images: Sequence[ObservationKey]) -> list[int]:
    """Channels from the stacked images down to the coarsest map."""
    stacked = sum(key.shape[0] for key in images)
    return [stacked, *(config.cnn_depth * mult for mult in config.cnn_mults)]


def _coarse_size(config: DreamerV3Config, image: ObservationKey) -> tuple[int, int]:
    """Height and width of the coarsest map, sides padded to a multiple of 2^stages."""
    multiple = 2 ** len(config.cnn_mults)
    return -(-image.shape[1] // multiple), -(-image.shape[2] // multiple)


class Encoder(nn.Module):
    """Observations to tokens `[..., E]`: an MLP over all vectors, then convolutions over images.

    Vector values pass through symlog, discrete ones are one-hot; images of one size are stacked on
    channels, each size has its own convolutions. Images whose sides are no multiple of 2^stages
    are padded at the bottom right.
    """

    def __init__(self, config: DreamerV3Config, keys: Sequence[ObservationKey]) -> None:
        super().__init__()
        flat = config.encoder_type == "mlp"
        self.images = [key for key in keys if key.kind == "image" and not flat]
        self.vectors = [key for key in keys if key not in self.images]
        self.use_symlog = config.use_symlog
        self.token_width = 0
        if self.vectors:
            size = sum(key.size for key in self.vectors)
            self.mlp = mlp(size, config.hidden_dim, config.num_mlp_layers)
            if self.vectors[-1].name == TASK:
                self.task_axes = {"mlp.0.linear.weight": 1}
            self.token_width += config.hidden_dim
        self.groups = _images_by_size(self.images)
        if self.images:
            towers = [self._tower(config, group) for group in self.groups]
            self.convs, self.further_convs = towers[0], nn.ModuleList(towers[1:])
            self.multiple = 2 ** len(config.cnn_mults)

    def _tower(self, config: DreamerV3Config, images: Sequence[ObservationKey]) -> nn.Sequential:
        channels, pool = _channels(config, images), config.cnn_downsample == "pool"
        height, width = _coarse_size(config, images[0])
        self.token_width += height * width * channels[-1]
        return nn.Sequential(
            *(
                ConvDown(channels[i], channels[i + 1], kernel, pool)
                for i, kernel in enumerate(config.cnn_kernels)
            )
        )

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        tokens = []
        if self.vectors:
            flat = [_flat_vector(obs[key.name], key, self.use_symlog) for key in self.vectors]
            tokens.append(self.mlp(torch.cat(flat, -1)))
        towers = [self.convs, *self.further_convs] if self.images else []
        for keys, convs in zip(self.groups, towers, strict=True):
            x = torch.cat([unit_image(obs[key.name]) for key in keys], -3) - 0.5
            frames = x.flatten(0, -4) if x.ndim > 3 else x.unsqueeze(0)
            bottom, right = -frames.shape[-2] % self.multiple, -frames.shape[-1] % self.multiple
            if bottom or right:
                frames = F.pad(frames, (0, right, 0, bottom))
            # Channel-last order, as the official weights expect it.
            features = convs(frames.contiguous(memory_format=torch.channels_last))
            features = features.permute(0, 2, 3, 1).flatten(1)
            tokens.append(features.reshape(*x.shape[:-3], -1))
        return torch.cat(tokens, -1)


def _flat_vector(value: Tensor, key: ObservationKey, use_symlog: bool) -> Tensor:
    leading = value.shape[: value.ndim - len(key.shape)]
    if key.kind == "image":
        value = unit_image(value) - 0.5
    elif key.kind == "discrete":
        known = (value >= 0).unsqueeze(-1)
        value = F.one_hot(value.long().clamp(min=0), key.classes).float() * known
    else:
        # -inf marks a missing value (official replay convention).
        value = value.float()
        value = value.masked_fill(value == -torch.inf, 0.0)
        value = symlog(value) if use_symlog else value
    return value.flatten(len(leading))


class Decoder(nn.Module):
    """Predictions of every observation key from deter `[..., D]` and stoch `[..., S * C]`.

    Vectors come in symlog space if `use_symlog`; discrete keys as logits
    `[..., *shape, classes]`; images in [0, 1] after a sigmoid.
    """

    def __init__(self, config: DreamerV3Config, keys: Sequence[ObservationKey]) -> None:
        super().__init__()
        flat = config.decoder_type == "mlp"
        self.images = [key for key in keys if key.kind == "image" and not flat]
        self.vectors = [key for key in keys if key not in self.images]
        self.groups = _images_by_size(self.images)
        if self.images:
            _require_blocks(config)
        if self.vectors:
            self.mlp = mlp(config.feature_dim, config.hidden_dim, config.num_mlp_layers)
            heads = {module_name(k.name): linear(config.hidden_dim, k.size) for k in self.vectors}
            self.heads = nn.ModuleDict(heads)
            if (head := module_name(TASK)) in heads:
                self.task_axes = {f"heads.{head}.weight": 0, f"heads.{head}.bias": 0}
        if self.images:
            upsample, kernels = config.cnn_downsample == "pool", config.cnn_kernels
            canvases, towers = [], []
            for group in self.groups:
                canvases.append(Canvas(config, _coarse_size(config, group[0])))
                channels = _channels(config, group)
                ups = (
                    ConvUp(channels[i + 1], channels[i], kernels[i], upsample, is_output=i == 0)
                    for i in reversed(range(len(kernels)))
                )
                towers.append(nn.Sequential(*ups))
            self.canvas, self.further_canvases = canvases[0], nn.ModuleList(canvases[1:])
            self.convs, self.further_convs = towers[0], nn.ModuleList(towers[1:])

    def forward(self, deter: Tensor, stoch: Tensor) -> dict[str, Tensor]:
        predictions = {}
        leading = deter.shape[:-1]
        if self.vectors:
            # Stoch first here, deter first in every other head: official order.
            hidden = self.mlp(torch.cat([stoch, deter], -1))
            for key, head in zip(self.vectors, self.heads.values(), strict=True):
                tail = (*key.shape, key.classes) if key.kind == "discrete" else key.shape
                out = head(hidden).reshape(*leading, *tail)
                predictions[key.name] = torch.sigmoid(out) if key.kind == "image" else out
        canvases = [self.canvas, *self.further_canvases] if self.images else []
        towers = [self.convs, *self.further_convs] if self.images else []
        for keys, canvas, convs in zip(self.groups, canvases, towers, strict=True):
            coarse = canvas(deter.reshape(-1, deter.shape[-1]), stoch.flatten(0, -2))
            height, width = keys[0].shape[1:]
            pixels = torch.sigmoid(convs(coarse)[..., :height, :width])
            split = pixels.split([key.shape[0] for key in keys], dim=1)
            for key, image in zip(keys, split, strict=True):
                predictions[key.name] = image.reshape(*leading, *key.shape)
        return predictions


def _require_blocks(config: DreamerV3Config) -> None:
    channels = config.cnn_depth * config.cnn_mults[-1]
    for name, width in (("deter_dim", config.deter_dim), ("cnn_depth * mult", channels)):
        if width % config.decoder_blocks:
            raise ConfigurationError(
                f"{name} = {width} is not a multiple of decoder_blocks={config.decoder_blocks}",
                where="DreamerV3Config.decoder_blocks",
            )


class Canvas(nn.Module):
    """The coarse map an image is drawn from: a block-linear view of deter plus an MLP of stoch.

    Shapes: `[N, D], [N, S * C] -> [N, channels, height, width]`, channels-last in memory.
    """

    def __init__(self, config: DreamerV3Config, size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.blocks = size, config.decoder_blocks
        self.channels = config.cnn_depth * config.cnn_mults[-1]
        units = size[0] * size[1] * self.channels
        self.from_deter = BlockLinear(config.deter_dim, units, self.blocks)
        self.hidden = Dense(config.stoch_dim, 2 * config.hidden_dim)
        self.from_stoch = linear(2 * config.hidden_dim, units)
        self.norm = RMSNorm(self.channels)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        # The block is the outer part of the channel index.
        inner = self.channels // self.blocks
        blocks = self.from_deter(deter).reshape(-1, self.blocks, *self.size, inner)
        coarse = blocks.permute(0, 2, 3, 1, 4).reshape(-1, *self.size, self.channels)
        coarse = coarse + self.from_stoch(self.hidden(stoch)).reshape(coarse.shape)
        return F.silu(self.norm(coarse)).permute(0, 3, 1, 2)


# --------------------------------------------------------------------------- heads


class ScalarHead(nn.Module):
    """Reward or value `[...]` of features `[..., F]`, as a two-hot categorical (or a point).

    `outscale` scales the first weights of the output; 0 makes the first predictions exactly 0.
    """

    bins: Tensor

    def __init__(self, config: DreamerV3Config, num_layers: int, outscale: float) -> None:
        super().__init__()
        self.use_twohot, self.use_symlog = config.use_twohot, config.use_symlog
        num, low, high = config.reward_num_bins, config.reward_bin_min, config.reward_bin_max
        self.mlp = mlp(config.feature_dim, config.hidden_dim, num_layers)
        self.out = linear(config.hidden_dim, num if self.use_twohot else 1, outscale)
        bins = symexp_bins(num, low, high) if self.use_symlog else torch.linspace(low, high, num)
        # Derived from the configuration, so it has no place in a checkpoint.
        self.register_buffer("bins", bins, persistent=False)

    def forward(self, features: Tensor) -> ScalarPrediction:
        hidden = self.mlp(features)
        if not self.use_twohot:
            return MeanSquared(self.out(hidden).squeeze(-1), self.use_symlog)
        # 256 columns: a matrix product of 255 takes twice as long. The last is of no bin.
        more = -len(self.bins) % REGISTER
        weight = F.pad(self.out.weight, (0, 0, 0, more))
        bias = F.pad(self.out.bias, (0, more), value=-torch.inf)
        return SymexpTwohot(F.linear(hidden, weight, bias), self.bins)


class ContinueHead(nn.Module):
    """Logit `[...]` of the probability that the episode continues, for features `[..., F]`."""

    part_name = "continue"

    def __init__(self, config: DreamerV3Config) -> None:
        super().__init__()
        self.mlp = mlp(config.feature_dim, config.hidden_dim, config.num_continue_layers)
        self.out = linear(config.hidden_dim, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(self.mlp(features)).squeeze(-1)


@dataclass
class ActionDistribution:
    """Independent distributions of the action parts, over one vector `[..., A]`.

    Log-probability and entropy `[...]` are sums over the parts.
    """

    parts: Sequence[ActionPart]
    distributions: Sequence[BoundedNormal | OneHotCategorical]

    def mode(self) -> Tensor:
        return torch.cat([d.mode() for d in self.distributions], -1)

    def sample(self) -> Tensor:
        return torch.cat([d.sample() for d in self.distributions], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        pairs = zip(self.parts, self.distributions, strict=True)
        return torch.stack([d.log_prob(action[..., p.columns]) for p, d in pairs]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([d.entropy() for d in self.distributions]).sum(0)


class Policy(nn.Module):
    """The actor: Dense layers, then for each action part one or two linear outputs."""

    def __init__(self, config: DreamerV3Config, parts: Sequence[ActionPart]) -> None:
        super().__init__()
        self.parts, self.unimix = tuple(parts), config.actor_unimix
        self.std_range = config.actor_std_min, config.actor_std_max
        self.mlp = mlp(config.feature_dim, config.hidden_dim, config.num_mlp_layers)
        self.heads = nn.ModuleDict()
        for part in parts:
            outputs = ("mean", "std") if part.kind == "continuous" else ("logits",)
            self.heads[module_name(part.name)] = nn.ModuleDict(
                {
                    name: linear(config.hidden_dim, part.width, config.actor_outscale)
                    for name in outputs
                }
            )

    def forward(self, features: Tensor, allowed: Tensor | None = None) -> ActionDistribution:
        """The distribution at features `[..., F]`; of the actions that `allowed` `[..., A]` has."""
        return self.of_hidden(self.mlp(features), allowed)

    def of_hidden(self, hidden: Tensor, allowed: Tensor | None = None) -> ActionDistribution:
        """The same from what the Dense layers made of the features."""
        heads = zip(self.parts, self.heads.values(), strict=True)
        return ActionDistribution(
            self.parts, [self._part(part, head, hidden, allowed) for part, head in heads]
        )

    def _part(
        self, part: ActionPart, head: nn.Module, hidden: Tensor, allowed: Tensor | None
    ) -> BoundedNormal | OneHotCategorical:
        assert isinstance(head, nn.ModuleDict)
        if part.kind == "discrete":
            mask = None if allowed is None else allowed[..., part.columns].float()
            return OneHotCategorical(head["logits"](hidden), self.unimix, mask)
        return BoundedNormal(head["mean"](hidden), head["std"](hidden), *self.std_range)


# --------------------------------------------------------------------------- component slots


@dataclass(eq=False)
class TokenEncoder:
    """Slot `observation_encoder`: observations -> State with `tokens` `[B, E]`.

    The posterior joins tokens with the recurrent state, so a replacement returns tokens of the
    same width and the model does the rest (encode, loss, acting).
    """

    encoder: Encoder

    def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
        return State({"tokens": self.encoder(observations)})


@dataclass(eq=False)
class HeadsDecoder:
    """Slot `decoder_module`: predictions of observations, reward, continuation and value.

    Predictions are in the units of the environment: vectors after symexp, images in [0, 1],
    discrete observations as probabilities `[B, *shape, classes]`, `continue` as a probability.
    One observation is called "obs"; several go by their names. Without a decoder there are none.

    A replacement is trained by its predictions: squared error of observations (in symlog space
    for vectors) and of rewards, cross entropy of `continue`.
    """

    keys: Sequence[ObservationKey]
    decoder: Decoder | None
    reward: ScalarHead
    continuation: ContinueHead
    critic: ScalarHead

    def decode(self, state: State, conditions: ConditionPayload) -> ModelOutput:
        latent = Latent.of(state)
        features = latent.features()
        predictions = {}
        raw = {} if self.decoder is None else self.decoder(latent.deter, latent.stoch.flatten(-2))
        for key in self.keys if raw else ():
            value = raw[key.name].float()
            if key.kind == "discrete":
                value = torch.softmax(value, -1)
            elif key.kind == "vector" and self.reward.use_symlog:
                value = symexp(value)
            predictions[prediction_of(key.name, len(self.keys))] = value
        predictions["reward"] = self.reward(features).pred()
        predictions["continue"] = torch.sigmoid(self.continuation(features).float())
        predictions["value"] = self.critic(features).pred()
        return ModelOutput(predictions=predictions, state=state)
