"""Multi-query attention: all query heads share one key-value head."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q = normal(2, 8, 100, 64)
    k, v = (normal(2, 100, 64) for _ in range(2))
    compare(op, Q=q, K=k, V=v)


if __name__ == "__main__":
    main()
