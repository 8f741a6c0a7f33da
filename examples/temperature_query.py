"""Each query has a temperature of its own."""

from __future__ import annotations

from _run import compare, load, normal, uniform


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    tau = uniform(4, 16, 2, 4, 100)
    compare(op, Q=q, K=k, V=v, tau=tau)


if __name__ == "__main__":
    main()
