"""The mathematics of DreamerV3 (Nature 2025), in float32: output distributions, categorical groups,
two-hot scalars over exponentially spaced bins (eq. 9-10), lambda returns, return range (eq. 7)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.shards import across_shards
from worldflux.nn import log_probs_at, log_softmax, softmax, symexp, symlog

_NEVER = 1e9  # taken off the logits of what is not allowed


class MeanSquared:
    """A point prediction `[...]`, compared by squared error, optionally in symlog space.

    The loss has no factor 1/2 (the official code has none; the paper writes one).
    """

    def __init__(self, output: Tensor, use_symlog: bool) -> None:
        self.output = output.float()
        self.use_symlog = use_symlog

    def pred(self) -> Tensor:
        """The prediction in the units of the target."""
        return symexp(self.output) if self.use_symlog else self.output

    def loss(self, *targets: Tensor) -> tuple[Tensor, ...]:
        """Squared error for each target, element by element; no gradient reaches a target."""
        plain = [target.detach().float() for target in targets]
        aims = [symlog(target) for target in plain] if self.use_symlog else plain
        return tuple((self.output - aim).square() for aim in aims)


def unit_image(image: Tensor) -> Tensor:
    """uint8 pixels become float in [0, 1]; a float image of any shape is in that range already."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


def bernoulli_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of a target in [0, 1], soft targets allowed: `[...] -> [...]`."""
    return F.binary_cross_entropy_with_logits(
        logit.float(), target.detach().float(), reduction="none"
    )


class BoundedNormal:
    """Normal(tanh(m), s), s = (high - low) * sigmoid(std_raw + 2) + low, independent per dimension.

    Samples are not squashed: the environment clips them, the replay keeps what was drawn.
    Shapes: raw `[..., A]`; log-probability and entropy sum over A to `[...]`.
    """

    def __init__(
        self, mean_raw: Tensor, std_raw: Tensor, std_low: float = 0.1, std_high: float = 1.0
    ) -> None:
        self.mean = torch.tanh(mean_raw.float())
        self._std_raw, self._std_range = std_raw, (std_low, std_high)
        self._std: Tensor | None = None

    @property
    def std(self) -> Tensor:
        """The standard deviation `[..., A]`; the mode, which acting takes, needs none."""
        if self._std is None:  # no cached_property: its lock is more than torch.compile traces
            low, high = self._std_range
            self._std = (high - low) * torch.sigmoid(self._std_raw.float() + 2.0) + low
        return self._std

    def mode(self) -> Tensor:
        """The mean `[..., A]`."""
        return self.mean

    def sample(self) -> Tensor:
        """A draw `[..., A]` without gradient, from torch's global generator."""
        # What torch.normal does, but for a look at the deviations, for which a GPU would wait.
        noise = torch.empty_like(self.mean).normal_()
        return noise.mul_(self.std.detach()).add_(self.mean.detach())

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density `[...]` of actions `[..., A]`."""
        scaled = (action - self.mean) / self.std
        per_dim = -0.5 * scaled.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return per_dim.sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy `[...]`, in nats, summed over the action."""
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


class OneHotCategorical:
    """A discrete action: one-hot float vectors `[..., A]` in and out.

    `unimix` mixes in that share of a uniform distribution; the current official policy has none.
    `allowed` `[..., A]` is 1 for choices that may be made, the others have the probability 0; where
    it allows none, as after the end of an episode, it allows all.
    """

    def __init__(self, logits: Tensor, unimix: float = 0.0, allowed: Tensor | None = None) -> None:
        logits = logits.float()
        if allowed is not None:
            allowed = torch.where(allowed.amax(-1, keepdim=True) > 0, allowed, 1.0)
            logits = logits + (allowed - 1) * _NEVER  # finite, because 0 * inf is NaN
        self.allowed = allowed
        probs = unimix_probs(logits, unimix, allowed) if unimix else None
        self.log_probs = log_softmax(logits) if probs is None else probs.log()

    def mode(self) -> Tensor:
        """The most likely choice as one-hot rows `[..., A]`."""
        return one_hot(pick(self.log_probs.exp(), None), self.log_probs.shape[-1])

    def sample(self) -> Tensor:
        """A draw `[..., A]` without gradient, from torch's global generator."""
        noise = uniform_noise(*self.log_probs.shape[:-1], device=self.log_probs.device)
        probs = self.log_probs.exp()
        index = pick(probs, noise)
        if self.allowed is not None:  # rounding may leave the last boundary under the noise
            is_allowed = self.allowed.gather(-1, index.unsqueeze(-1)).squeeze(-1) > 0
            index = torch.where(is_allowed, index, pick(probs, None))
        return one_hot(index, self.log_probs.shape[-1])

    def log_prob(self, action: Tensor) -> Tensor:
        """Log probability `[...]` of one-hot rows `[..., A]`."""
        return (action * self.log_probs).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy `[...]`, in nats."""
        return entropy(self.log_probs)


def unimix_probs(logits: Tensor, unimix: float, allowed: Tensor | None = None) -> Tensor:
    """(1 - unimix) * softmax(logits) + unimix / classes, float32: `[..., C] -> [..., C]`.

    The uniform floor bounds the KL between two such distributions. With `allowed` `[..., C]` it is
    uniform over these, and tiny elsewhere.
    """
    probs = softmax(logits.float())
    if allowed is not None:
        even = allowed / allowed.sum(-1, keepdim=True)
        return ((1 - unimix) * probs + unimix * even).clamp(min=torch.finfo(probs.dtype).tiny)
    return (1 - unimix) * probs + unimix / logits.shape[-1] if unimix else probs


def uniform_noise(*groups: int, device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1), `[*groups]`, for `pick`; from torch's global generator."""
    return torch.rand(groups, device=device)


def pick(probs: Tensor, noise: Tensor | None) -> Tensor:
    """A class for each group: `[..., C] -> [...]` int64; without noise the most likely one.

    `noise` `[...]` is uniform in [0, 1): the drawn class is the first whose cumulative
    probability exceeds it. As an argument, so that a recurrent loop draws all of it in one call.
    """
    probs = probs.detach()
    if noise is None:
        return probs.argmax(-1)
    # Without the last boundary, which rounding may leave just under 1.
    return (probs.cumsum(-1)[..., :-1] <= noise.unsqueeze(-1)).sum(-1)


def one_hot(index: Tensor, classes: int) -> Tensor:
    """Float one-hot `[..., C]` of `index` `[...]`, without a range check that waits for the GPU."""
    return (index.unsqueeze(-1) == torch.arange(classes, device=index.device)).float()


def straight_through(index: Tensor, probs: Tensor) -> Tensor:
    """One-hot `[..., C]` of `index` `[...]` whose gradient is that of the probabilities."""
    hard = one_hot(index, probs.shape[-1])
    return hard + (probs - probs.detach()) if probs.requires_grad else hard


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) summed over groups and classes: two `[..., S, C]` -> `[...]`, in nats."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy of each group: `[..., C]` -> `[...]`, in nats."""
    return -(log_probs.exp() * log_probs).sum(-1)


def symexp_bins(num_bins: int = 255, low: float = -20.0, high: float = 20.0) -> Tensor:
    """Bin values `[num_bins]`: symexp of evenly spaced points from `low` to `high`.

    For an odd number of bins and symmetric bounds the positive half mirrors the negative half bit
    for bit; otherwise rounding would make a uniform prediction differ from 0.
    """
    if num_bins % 2 == 0 or low != -high:
        return symexp(torch.linspace(low, high, num_bins))
    # The grid is rounded where the official code rounds it (a reciprocal in float32, one fused
    # multiply-add), because outer bins near 1e8 carry a rounding of the grid into every value.
    steps = num_bins // 2
    reciprocal = torch.tensor(1 / steps, dtype=torch.float32).double()
    remaining = (1 - torch.arange(steps + 1, dtype=torch.float64) * reciprocal).float()
    remaining[-1] = 0.0
    half = symexp(low * remaining)
    return torch.cat([half, -half[:-1].flip(0)])


class SymexpTwohot:
    """The distribution that `logits` `[..., n]` put on `bins` `[n]` (ascending).

    There may be further logits than bins, of -inf.
    """

    def __init__(self, logits: Tensor, bins: Tensor) -> None:
        self.logits, self.bins = logits.float(), bins

    def pred(self) -> Tensor:
        """Expected value `[...]`.

        The mirrored halves are added pairwise, so that equal probabilities give exactly 0: the
        outer bins are near +-5e8, where a plain sum leaves an error of 0.3. For the same reason
        this is a softmax, not the exponential of a log-softmax.
        """
        probs = torch.softmax(self.logits, -1)[..., : len(self.bins)]
        if len(self.bins) % 2 == 0:
            return (probs * self.bins).sum(-1)
        if self.logits.device.type != "cpu" or torch.compiler.is_exporting():
            return _sum_of_pairs(probs * self.bins)
        return _mirrored_sum(probs.flatten(0, -2), self.bins).view(self.logits.shape[:-1])

    def loss(self, *targets: Tensor) -> tuple[Tensor, ...]:
        """Cross entropy `[...]` with the two-hot encoding of each target `[...]`.

        The weights are linear between the neighbouring bins in raw value space. No gradient
        reaches a target. Several targets share one log-softmax and one gather over all bins.
        """
        stacked = torch.stack([target.detach().float() for target in targets], -1)
        below, above, weight_above = two_hot(stacked, self.bins)
        picked = log_probs_at(self.logits, torch.cat([below, above], -1))
        weights = torch.cat([1 - weight_above, weight_above], -1)
        losses = -(picked * weights).unflatten(-1, (2, len(targets))).sum(-2)
        return losses.unbind(-1)


# What a reward or value head returns: an expected value, and one loss for each target.
ScalarPrediction = SymexpTwohot | MeanSquared


def _mirrored_sum(probs: Tensor, bins: Tensor) -> Tensor:
    """Sum of probabilities `[N, n]` times bins `[n]`, from the middle outwards in pairs: `[N]`.

    Terms near 1e6 cancel to values near 0, so the order of a float32 sum shows in the targets made
    from it. This is the order of the recorded official numbers.
    """
    middle = len(bins) // 2
    # A copy of two axes goes in tiles, one of more number by number.
    columns = probs.t().contiguous().mul_(bins.unsqueeze(1))
    total = columns[middle - 1] + columns[middle + 1]
    for i in range(2, middle + 1):
        total += columns[middle - i] + columns[middle + i]
    return columns[middle] + total


def _sum_of_pairs(weighted: Tensor) -> Tensor:
    """The same without the order, of `[..., n]`: on a GPU a kernel for each term would cost more
    than the sum."""
    middle = weighted.shape[-1] // 2
    pairs = weighted[..., :middle].flip(-1) + weighted[..., middle + 1 :]
    return weighted[..., middle] + pairs.sum(-1)


def two_hot(target: Tensor, bins: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbouring bins of `target` `[...]`: (index below, index above, weight of the upper one).

    A target on a bin value gives that bin the whole weight. Outside the range both indices are the
    end bin. NaN has no bin: its weight is NaN, and so is a loss made of it.
    """
    rank = torch.searchsorted(bins, target.contiguous(), right=True)
    below = (rank - 1).clamp(min=0)
    above = rank.clamp(max=bins.shape[0] - 1)
    distance_below = (target - bins[below]).abs()
    distance_above = (bins[above] - target).abs()
    # Where the two coincide any split is the same one; it must only not be 0 / 0.
    total = torch.where(below == above, 1.0, distance_below + distance_above)
    weight = torch.where(below == above, 0.0, distance_below / total)
    return below, above, torch.where(target.isnan(), target, weight)


def lambda_returns(
    last: Tensor,
    terminal: Tensor,
    reward: Tensor,
    bootstrap: Tensor,
    discount: float,
    lambda_: float,
) -> Tensor:
    """TD(lambda) returns R_0 .. R_{T-2} over a stretch of T states.

        live_t = (1 - terminal_t) * discount          cont_t = (1 - last_t) * lambda
        R_{T-1} = bootstrap_{T-1}
        R_t = reward_{t+1} + live_{t+1} [(1 - cont_{t+1}) bootstrap_{t+1} + cont_{t+1} R_{t+1}]

    `reward_t` arrived with state t, so `reward_0` is not used. A time limit has last=1 and
    terminal=0: the return stops there and bootstraps.

    Args:
        last, terminal: `[..., T]` in [0, 1]; in imagination terminal is 1 - continue probability.
        reward, bootstrap: `[..., T]`.

    Returns: `[..., T - 1]`.

    Source: DreamerV3 (Nature 2025), eq. 4, in the general form of the official code.
    """
    shapes = [x.shape for x in (last, terminal, reward, bootstrap)]
    assert len(set(shapes)) == 1, shapes
    live = (1 - terminal.to(reward.dtype))[..., 1:] * discount
    cont = (1 - last.to(reward.dtype))[..., 1:] * lambda_
    base = reward[..., 1:] + (1 - cont) * live * bootstrap[..., 1:]
    decay = live * cont
    running = bootstrap[..., -1]
    returns = []
    for t in reversed(range(base.shape[-1])):
        running = base[..., t] + decay[..., t] * running
        returns.append(running)
    return torch.stack(returns[::-1], dim=-1)


class ReturnNormalizer(nn.Module):
    """An exponential average of the 5th and 95th percentile of imagined returns.

    `updated(returns)` computes the next percentiles without storing them, so that a loss has no
    side effect; `commit` stores them. Both start at 0, without debiasing. `rate` is the weight of
    a new batch, `limit` the smallest scale.
    """

    low_value: Tensor
    high_value: Tensor
    levels: Tensor

    def __init__(
        self, rate: float = 0.01, low: float = 5.0, high: float = 95.0, limit: float = 1.0
    ) -> None:
        super().__init__()
        self.rate, self.limit = rate, limit
        self.register_buffer("low_value", torch.zeros(()))
        self.register_buffer("high_value", torch.zeros(()))
        levels = torch.tensor([low / 100, high / 100])
        self.register_buffer("levels", levels, persistent=False)  # where the returns are

    def updated(self, returns: Tensor) -> Tensor:
        """The averages `[2]` (low, high) after `returns` of any shape, of the whole batch."""
        fresh = torch.quantile(across_shards(returns.detach().float().flatten()), self.levels)
        stored = torch.stack([self.low_value, self.high_value])
        return (1 - self.rate) * stored + self.rate * fresh

    def scale(self, percentiles: Tensor) -> Tensor:
        """max(limit, high - low) of `percentiles` `[2]`, a scalar."""
        return (percentiles[1] - percentiles[0]).clamp(min=self.limit)

    def commit(self, percentiles: Tensor) -> None:
        """Store the averages `[2]` that `updated` returned."""
        self.low_value.copy_(percentiles[0])
        self.high_value.copy_(percentiles[1])
