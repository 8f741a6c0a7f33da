"""A dense bias for each batch, head, query and key."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    bias = normal(2, 4, 100, 100)
    compare(op, Q=q, K=k, V=v, bias=bias)


if __name__ == "__main__":
    main()
