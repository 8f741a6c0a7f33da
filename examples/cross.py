"""Cross attention: queries i of one sequence, keys m of another, of any other length."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q = normal(2, 4, 50, 64)
    k, v = (normal(2, 4, 120, 64) for _ in range(2))
    compare(op, Q=q, K=k, V=v)


if __name__ == "__main__":
    main()
