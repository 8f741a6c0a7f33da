"""Causal softmax attention with a learned per-head slope."""

from __future__ import annotations

from _run import compare, load, normal, uniform


def main() -> None:
    op = load(__file__)
    q = normal(2, 8, 100, 64)
    k, v = (normal(2, 2, 100, 64) for _ in range(2))
    slope = uniform(0, 0.5, 8)
    compare(op, Q=q, K=k, V=v, slope=slope)


if __name__ == "__main__":
    main()
