"""2-D neighbourhood on images of width w, at most r rows and r columns away."""

from __future__ import annotations

from _run import compare, load, normal


def main() -> None:
    op = load(__file__)
    q, k, v = (normal(2, 4, 100, 64) for _ in range(3))
    compare(op, Q=q, K=k, V=v, w=10, r=2)


if __name__ == "__main__":
    main()
