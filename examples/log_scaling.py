"""Scores grow with the log of the number of keys, times a learned factor."""

from __future__ import annotations

from _run import compare, load, normal, uniform


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    s = uniform(0.2, 0.8, 4)
    compare(op, Q=q, K=k, V=v, s=s)


if __name__ == "__main__":
    main()
