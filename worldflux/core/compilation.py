"""Functions that torch compiles (`training.compile`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from worldflux.layout import cache_folder

P = ParamSpec("P")
R = TypeVar("R")

Fallback = Callable[[str], None]
"""Receives the reason why a function could not be compiled."""


class CompiledFunction(Generic[P, R]):
    """`function`, compiled at its first call; the function itself once compiling has failed.

    The user's cache folder, or `TORCHINDUCTOR_CACHE_DIR`, keeps it for the next process, by code,
    sizes, torch and processor.

    `function` has no lasting side effects: a call that cannot be compiled is made eagerly, and must
    give the same. What it draws is what it would draw eagerly. `on_fallback` gets the reason, once.
    """

    def __init__(self, function: Callable[P, R], on_fallback: Fallback, **options: Any) -> None:
        _keep_in_cache()
        # fullgraph: a function compiled in pieces would run eagerly in part, unnoticed.
        self._compiled: Callable[P, R] | None = torch.compile(function, fullgraph=True, **options)
        self._function = function
        self._on_fallback = on_fallback

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._compiled is not None:
            from torch._dynamo.exc import TorchDynamoException
            from torch._functorch import config as autograd_config

            try:
                # Otherwise the backward pass is compiled, and can fail, inside `backward`.
                with (
                    autograd_config.patch(force_non_lazy_backward_lowering=True)
                    if torch.is_grad_enabled()
                    else nullcontext()
                ):
                    return self._compiled(*args, **kwargs)
            except TorchDynamoException as error:
                self._compiled = None
                self._on_fallback(_first_line(error))
        return self._function(*args, **kwargs)


def _keep_in_cache() -> None:
    """Torch's own folder is one of temporary files; it remains where the cache cannot be used."""
    folder = cache_folder() / "compiled"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def _first_line(error: Exception) -> str:
    cause = getattr(error, "inner_exception", error)  # of a compiler's failure
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else 'no reason given'}"
