"""Where the time of a call goes: operator time by what the operators are for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

CALLS = 5
OTHER = "copies, concatenation, the rest"

# The innermost name that one of these matches decides; names are operators, the Python functions
# that called them as "file(line): function", and autograd's nodes.
PURPOSES = {
    "matrix products": r"aten::(addmm|mm|bmm|baddbmm|addmv|mv)_?$",
    "optimiser, clipping, targets": r"Optimizer\.|: (clip_grad_norm_|lerp_targets_|zero_grad)$",
    "LayerNorm": r"layer_norm|LayerNorm|AddcmulBackward",
    "Mish": r": mish$|_Mish|LayerNormMish",
    "SimNorm": r": simnorm$",
    "two-hot values and losses": r": two_hot|SoftmaxBackward|LogProbsAt",
    "dropout mask": r": dropout_mask$|aten::bernoulli_",
    "drawing, top-k, refit": r": (_draw_candidates|_elites|_refit|_drawn_elite|draw_heads"
    r"|sample_action|sample_policy|draw_action)$|aten::normal_",
}


def purpose(event: torch.autograd.profiler_util.FunctionEvent) -> str:
    """What an operator is for, by its own name or the nearest one around it."""
    around: torch.autograd.profiler_util.FunctionEvent | None = event
    while around is not None:
        for name, pattern in PURPOSES.items():
            if re.search(pattern, around.name):
                return name
        around = around.cpu_parent
    return OTHER


def print_shares(title: str, call: Callable[[], object]) -> None:
    """A markdown table of shares of operator time; Python's own time is not among them."""
    call()
    verbose = torch._C._profiler._ExperimentalConfig(verbose=True)  # names of Python callers
    with profile(
        activities=[ProfilerActivity.CPU], with_stack=True, experimental_config=verbose
    ) as profiler:
        for _ in range(CALLS):
            call()
    spent: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    for event in profiler.events():
        if event.name.startswith(("aten::", "Optimizer.", "_")):
            what = purpose(event)
            spent[what] += event.self_cpu_time_total
            kernels[what] += event.self_cpu_time_total > 0
    total = sum(spent.values())
    print(f"| {title} | share | operators |\n|---|---|---|")
    for what, time_us in spent.most_common():
        print(f"| {what} | {100 * time_us / total:.1f} % | {kernels[what] // CALLS} |")
