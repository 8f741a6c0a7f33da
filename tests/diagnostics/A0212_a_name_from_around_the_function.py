"""A function is read, not run."""
# ruff: noqa: F821

from attndsl.frontend.annotations import Tensor

cap = 50.0


def capped(Q: Tensor["i,e"], K: Tensor["j,e"], V: Tensor["j,f"]) -> Tensor["i,f"]:
    S[i, j : j <= i] = cap * tanh(Q[i, e] * K[j, e])
    O[i, f] = softmax[j](S[i, j]) * V[j, f]
    return O
