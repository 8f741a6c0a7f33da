"""One learned bias for each head and signed distance, in a table of |i| + |j| - 1."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    table = normal(4, 199)
    compare(op, Q=q, K=k, V=v, table=table)


if __name__ == "__main__":
    main()
