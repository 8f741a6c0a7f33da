"""A causal window, the first n0 keys, and a learned sink in the denominator."""

from __future__ import annotations

from _run import compare, load, normal, uniform


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    sink = uniform(-1, 1, 4)
    compare(op, Q=q, K=k, V=v, sink=sink, w=32, n0=4)


if __name__ == "__main__":
    main()
