"""Packed documents: causal, and only within the query's own document."""

from __future__ import annotations

from _run import compare, ints, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    doc = ints([[0] * 60 + [1] * 40, [0] * 10 + [1] * 33 + [2] * 57])
    compare(op, Q=q, K=k, V=v, qdoc=doc, kdoc=doc)


if __name__ == "__main__":
    main()
