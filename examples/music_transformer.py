"""Relative keys, the last row of R at distance 0, causal."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    r = normal(4, 100, 64)
    compare(op, Q=q, K=k, V=v, R=r)


if __name__ == "__main__":
    main()
