"""Softmax off by one, exp(x) / (1 + sum exp(x)): a head may attend to nothing."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    compare(op, Q=q, K=k, V=v)


if __name__ == "__main__":
    main()
