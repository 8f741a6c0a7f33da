"""T5's relative bias: an int table puts distances into buckets."""

from __future__ import annotations

from _run import compare, ints, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    table = normal(4, 32)
    bucket = (ints(range(-99, 100)).abs() // 4 + ints(range(-99, 100)).lt(0) * 16).clamp(max=31)
    compare(op, Q=q, K=k, V=v, table=table, bucket=bucket)


if __name__ == "__main__":
    main()
