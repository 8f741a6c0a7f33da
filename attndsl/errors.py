"""The catalogue of codes, for `attndsl explain CODE` and for the error index of the documentation.

To add a code, add one `ErrorInfo` to the list of its family:

    A01xx syntax   A02xx names, ranks and types   A03xx algebra   A04xx schedules   A05xx targets, launch, calls
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """One code: a title, what it means and why it is refused, and a wrong and a right example.

    The examples are statements of a body, or whole programs (then they start with `attention`, `def` or `@`).
    """

    code: str
    title: str
    text: str
    wrong: str = ""
    right: str = ""

    @property
    def explanation(self) -> str:
        """The text and the examples, as `attndsl explain` prints them."""
        parts = [self.text.strip()]
        for word, example in (("Wrong", self.wrong), ("Right", self.right)):
            if example:
                lines = "\n".join(f"    {line}" for line in example.strip("\n").split("\n"))
                parts.append(f"{word}:\n\n{lines}")
        return "\n\n".join(parts)


# A03xx: what the algebra of a cascade does not allow.
ALGEBRA = [
    ErrorInfo(
        "A0301",
        "an exponential that may overflow (a warning)",
        "The exponential of a score is infinite in float32 where the score is above 88. Where every output stays the "
        "same if a row's exponentials are multiplied by one factor, the compiler subtracts the row's maximum by "
        "itself. Here an output would change, so the program is kept as it is written. Subtract the maximum and scale "
        "what stands beside the exponential; examples/off_by_one.attn does.",
        "attention f(Q[i,e], K[j,e], V[j]) -> O[i] {\n"
        "  P[i,j] = exp(Q[i,e] * K[j,e])\n"
        "  O[i]   = P[i,j] / (1 + sum[j](P[i,j])) * V[j]\n"
        "}",
        "attention f(Q[i,e], K[j,e], V[j]) -> O[i] {\n"
        "  S[i,j] = Q[i,e] * K[j,e]\n"
        "  M[i]   = max[j](S[i,j])\n"
        "  P[i,j] = exp(S[i,j] - M[i])\n"
        "  O[i]   = P[i,j] / (exp(-M[i]) + sum[j](P[i,j])) * V[j]\n"
        "}",
    ),
    ErrorInfo(
        "A0302",
        "a sum at every pair of positions (a warning)",
        "A sum that is needed at every pair of positions is a matrix product where each of its factors belongs to one "
        "of the two. Otherwise a kernel takes it term by term: nothing of that size is kept in memory, but the time "
        "grows with the product of all three lengths. Over features, a hundred or so, that is what additive scores "
        "cost; here the rank is one that may be as long as a sequence, since it stands last in "
        "no input.",
        "attention f(Q[b,i,e], K[b,j,e], L[b,l,e], V[b,j,f]) -> O[b,i,f] {\n  batch b\n"
        "  A[i,l] = Q[i,e] * L[l,e]\n  B[l,j] = L[l,e] * K[j,e]\n"
        "  T[i,j] = sum[l](tanh(A[i,l] + B[l,j]))\n  O[i,f] = T[i,j] * V[j,f]\n}",
        "attention f(Q[b,i,e], K[b,j,e], L[b,l,e], V[b,j,f]) -> O[b,i,f] {\n  batch b\n"
        "  A[i,l] = Q[i,e] * L[l,e]\n  B[l,j] = L[l,e] * K[j,e]\n"
        "  T[i,j] = tanh(A[i,l]) * tanh(B[l,j])\n  O[i,f] = T[i,j] * V[j,f]\n}",
    ),
]


def _catalogue(*families: Iterable[ErrorInfo]) -> dict[str, ErrorInfo]:
    found: dict[str, ErrorInfo] = {}
    for info in (i for family in families for i in family):
        if info.code in found:
            raise ValueError(f"{info.code} is in the catalogue twice")
        found[info.code] = info
    return dict(sorted(found.items()))


def _all() -> dict[str, ErrorInfo]:
    from attndsl.codes_calls import CALLS
    from attndsl.codes_schedules import SCHEDULES
    from attndsl.frontend.codes_names import NAMES
    from attndsl.frontend.codes_syntax import SYNTAX

    return _catalogue(SYNTAX, NAMES, ALGEBRA, SCHEDULES, CALLS)


CODES: dict[str, ErrorInfo] = _all()
