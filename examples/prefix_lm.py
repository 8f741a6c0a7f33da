"""Prefix LM: the first n[b] keys are seen by all, the rest causally."""

from __future__ import annotations

from _run import compare, ints, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    n = ints([40, 0])
    compare(op, Q=q, K=k, V=v, n=n)


if __name__ == "__main__":
    main()
