"""A bias of low rank r, kept as its two factors."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    a, b = normal(4, 100, 8), normal(4, 100, 8)
    compare(op, Q=q, K=k, V=v, A=a, B=b)


if __name__ == "__main__":
    main()
