"""Content and position scores, each with a bias of its own, R by distance."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q = normal(2, 4, 60, 64)
    k, v = (normal(2, 4, 100, 64) for _ in range(2))
    r, bu, bv = normal(4, 100, 64), normal(4, 64), normal(4, 64)
    compare(op, Q=q, K=k, V=v, R=r, u=bu, v=bv, start="end")


if __name__ == "__main__":
    main()
