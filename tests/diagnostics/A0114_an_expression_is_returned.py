"""What is returned has a name."""
# ruff: noqa: F821

from attndsl import Tensor, attention_spec


@attention_spec
def two(Q: Tensor["b,i,e"], K: Tensor["b,j,e"], V: Tensor["b,j,f"]) -> Tensor["b,i,f"]:
    batch(b)
    S[i, j : j <= i] = Q[i, e] * K[j, e]
    return softmax[j](S[i, j]) * V[j, f]
