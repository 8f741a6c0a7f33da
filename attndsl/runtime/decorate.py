"""`@attention_spec`: an operator from a Python function whose body is a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from attndsl.frontend.decorator import spec_from_function
from attndsl.runtime.loading import tell
from attndsl.runtime.operator import CompiledAttention


@overload
def attention_spec(fn: Callable[..., Any]) -> CompiledAttention: ...
@overload
def attention_spec(
    *,
    batch: str | None = None,
    backend: str | None = None,
    autotune: str = "never",
    deterministic: bool = True,
    precision: str = "split",
) -> Callable[[Callable[..., Any]], CompiledAttention]: ...


def attention_spec(
    fn: Callable[..., Any] | None = None,
    *,
    batch: str | None = None,
    backend: str | None = None,
    autotune: str = "never",
    deterministic: bool = True,
    precision: str = "split",
) -> CompiledAttention | Callable[[Callable[..., Any]], CompiledAttention]:
    """The operator of a Python function; its body is read, never run.

        @attndsl.attention_spec
        def causal(Q: Tensor["b,h,i,e"], K: Tensor["b,h,j,e"], V: Tensor["b,h,j,f"]):
            batch(b, h)
            S[i, j : j <= i] = Q[i, e] * K[j, e] / sqrt(len(e))
            O[i, f] = softmax[j](S[i, j]) * V[j, f]
            return O

        o = causal(q, k, v)

    `batch="b, h"` stands for the statement `batch(b, h)`; `backend`, `autotune`, `deterministic` and `precision` are
    as in `attndsl.load`.

    Raises: DiagnosticError, with spans into the Python file.
    """

    def wrap(f: Callable[..., Any]) -> CompiledAttention:
        spec = spec_from_function(f, batch=batch)
        tell(spec.diagnostics, 3)
        header = f"source: {spec.source.name}"
        return CompiledAttention(
            spec.cascade,
            backend=backend,
            header=header,
            autotune=autotune,
            deterministic=deterministic,
            precision=precision,
        )

    return wrap if fn is None else wrap(fn)
