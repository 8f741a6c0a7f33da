"""Two-sided sliding window: w keys to the left and w to the right."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    compare(op, Q=q, K=k, V=v, w=16)


if __name__ == "__main__":
    main()
