"""Attention variants as cascades of Einsums, compiled to fused kernels, forward and backward.

    import attndsl

    op = attndsl.load("examples/alibi.attn")
    o, lse = op(q, k, v, slope)

Importing this package loads neither torch nor Triton; names load what they need when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attndsl.callerrors import CallError
    from attndsl.diagnostics import DiagnosticError
    from attndsl.frontend.annotations import Tensor
    from attndsl.runtime.decorate import attention_spec
    from attndsl.runtime.loading import compile, load
    from attndsl.runtime.operator import CompiledAttention
    from attndsl.tuning.prebuilt import install

__version__ = "0.1.0"

# Where each public name lives.
_HOME = {
    "CallError": "attndsl.callerrors",
    "CompiledAttention": "attndsl.runtime.operator",
    "DiagnosticError": "attndsl.diagnostics",
    "Tensor": "attndsl.frontend.annotations",
    "attention_spec": "attndsl.runtime.decorate",
    "compile": "attndsl.runtime.loading",
    "install": "attndsl.tuning.prebuilt",
    "load": "attndsl.runtime.loading",
}

__all__ = [
    "CallError",
    "CompiledAttention",
    "DiagnosticError",
    "Tensor",
    "attention_spec",
    "compile",
    "install",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value  # the next look-up does not come here
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
