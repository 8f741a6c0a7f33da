"""A body is read, not run: there are no loops."""
# ruff: noqa: B007, F821

from attndsl.frontend.annotations import Tensor


def causal(Q: Tensor["b,h,i,e"], K: Tensor["b,h,j,e"]) -> Tensor["b,h,i,j"]:
    batch(b, h)
    for n in range(3):
        S[i, j] = Q[i, e] * K[j, e]
    return S
