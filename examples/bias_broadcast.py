"""Biases that leave axes out: for each head and pair, for each sequence and key, for each pair."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    head, key, pair = normal(4, 100, 100), normal(2, 100), normal(100, 100)
    compare(op, Q=q, K=k, V=v, head=head, key=key, pair=pair)


if __name__ == "__main__":
    main()
