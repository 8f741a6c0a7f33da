"""A causal window and the first n0 keys, the attention sinks."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    compare(op, Q=q, K=k, V=v, w=32, n0=4)


if __name__ == "__main__":
    main()
