"""Places in a Python file."""
# ruff: noqa: F821

from attndsl.frontend.annotations import Tensor


def causal(Q: Tensor["b,h,i,e"], K: Tensor["b,h,j,e"]) -> Tensor["b,h,i,j"]:
    batch(b, h)
    S[i, j : j <= i] = (
        Q[i, e]  # contracted
        * K[j, d]
    )
    return S
