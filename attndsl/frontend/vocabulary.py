"""The words of the language: functions, reductions, normalizers, and the names nobody may take."""

from __future__ import annotations

import keyword

KEYWORDS = frozenset(
    {
        "attention",
        "def",
        "batch",
        "rank",
        "assume",
        "where",
        "init",
        "if",
        "else",
        "and",
        "or",
        "not",
        "True",
        "False",
    }
)
REDUCTIONS = frozenset({"sum", "max", "min", "prod", "any", "all", "logsumexp"})
NORMALIZERS = frozenset({"softmax", "sparsemax", "entmax15"})
BINDERS = REDUCTIONS | {"solve"}  # the operators that bind their indices
OPERATORS = BINDERS | NORMALIZERS
FUNCTIONS = frozenset(
    {
        "exp",
        "exp2",
        "log",
        "log2",
        "sqrt",
        "rsqrt",
        "tanh",
        "sigmoid",
        "logsigmoid",
        "softplus",
        "relu",
        "elu",
        "silu",
        "gelu",
        "erf",
        "sin",
        "cos",
        "acos",
        "abs",
        "sign",
        "floor",
        "ceil",
        "min",
        "max",
    }
)
TYPES = frozenset({"float", "int", "bool"})
RESERVED = frozenset({"start", "state", "return_state", "cu_seqlens", "out", "debug"})
# Keywords of an operator's methods, which take inputs and parameters by name besides. (`op.partial`, whose `first` is a
# usual name for ids of what begins anew, refuses such programs itself.)
METHODS = {
    "dtype": "op.reference",
    "device": "op.warmup",
    "backward": "op.warmup",
}


def why_taken(name: str) -> str | None:
    """Why a program may not use `name` for something of its own; None if it may."""
    if name in OPERATORS:
        return "is an operator of the language"
    if name in FUNCTIONS:
        return "is a function of the language"
    if name in TYPES:
        return "is a type of the language"
    if name in KEYWORDS:
        return "is a keyword of the language"
    if keyword.iskeyword(name):
        return "is a keyword of Python"
    if name in RESERVED:
        return "is an argument of every compiled operator"
    return None
