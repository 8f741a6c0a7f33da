"""Cross attention over padded keys: sequence b has length[b] keys, which may be none."""

from __future__ import annotations

from _run import compare, ints, load, normal


def main() -> None:
    op = load(__file__)
    q = normal(3, 4, 50, 64)
    k, v = (normal(3, 4, 120, 64) for _ in range(2))
    length = ints([120, 31, 0])
    compare(op, Q=q, K=k, V=v, length=length)


if __name__ == "__main__":
    main()
