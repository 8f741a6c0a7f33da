"""Causal windows whose width is each head's own; a head of width 0 reads nothing."""

from __future__ import annotations

from _run import compare, ints, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    w = ints([8, 16, 32, 64])
    compare(op, Q=q, K=k, V=v, w=w)


if __name__ == "__main__":
    main()
