"""What people bring from other languages is recognised, and the help says how this one puts it."""

from __future__ import annotations

import pytest

import attndsl

HEAD = "attention a(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] {\n  batch b, h\n"
SCORE = "  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) where j <= i\n"
OUT = "  O[i,f] = softmax[j](S[i,j]) * V[j,f]\n"

# what stands in the place of `where j <= i`: code, what the carets stand under, the help
CONDITIONS = {
    "where j =< i": ("A0101", "=<", "did you mean `<=`?"),
    "where i => j": ("A0101", "=>", "did you mean `>=`?"),
    "where i <> j": ("A0101", "<>", "did you mean `!=`?"),
    "j <= i": ("A0101", "j", "a condition begins with `where`"),
    "0 <= i - j": ("A0101", "0", "`where` before a condition"),
    "not (j > i)": ("A0101", "not", "`where` before a condition"),
    "where j <= i | j < 4": ("A0101", "|", "write `or` between conditions"),
    "where j <= i || j < 4": ("A0109", "|", "write `or`"),
}
# a line before the others, which it may read
LINES = {
    "for i in range(4): T[i] = 1": ("A0101", "for", "there are no loops"),
    "return S": ("A0101", "return", "declared after `->`"),
    "T[i] = lambda x: x": ("A0101", "x", "`def f(x) = …`"),
    "T[i] = math.sqrt(|e|)": ("A0109", ".", "functions stand alone: `sqrt`"),
    "T[i,j] = Q[i,e] * K.T[e,j]": ("A0109", ".", "a transpose is a read"),
    "T[i] = sqrt(e.size)": ("A0109", ".", "an extent is written `|e|`"),
    "T[i] = sum[e](Q[..., e])": ("A0109", ".", "every index is written"),
    "T[i] = max(Q[i,:])": ("A0101", ":", "there are no slices"),
    "T[i,e] = |Q[i,e]|": ("A0101", "[", "write `abs(…)`"),
    "T[i] = sqrt(len(e))": ("A0204", "len(e)", "an extent is written `|e|`"),
    "T[i] = mean[e](Q[i,e])": ("A0204", "mean[e](Q[i,e])", "divide a sum"),
    "T[i,j] = Q[i,e] K[j,e]": ("A0101", "K", "write `*` for a product"),
    "T[i] = sum[e | e > 2](Q[i,e])": ("A0101", "|", "write `sum[e : …](…)`"),
    "T[i] = sum[e : e > 2, e < 5](Q[i,e])": ("A0207", "e < 5", "with `and`"),
    "T[i] = sqrt(|d|)": ("A0212", "|d|", "there are `|b|`, `|e|`"),
    "T[i] = 1 if i > 2 else None": ("A0212", "None", "restrict the domain"),
    "A[i,f] = A[i-1,f] + B[i-1] init 0\n  B[i] = A[i-1,0] + B[i-1] init 0": (
        "A0213",
        "B[i-1]",
        "recurrences that read each other are one",
    ),
    "A[i,f] = A[i-1,f] + B[i-1,f] init 0\n  B[i,f] = A[i-1,f] init 0": (
        "A0263",
        "B",
        "remove",
    ),
    "A[i,f] = B[i-1] + V[i,f] init 0\n  B[i] = A[i-1,0] init 0": (
        "A0244",
        "0",
        "recurrences that read each other are one",
    ),
}
# whole programs
HEADERS = {
    **{
        HEAD + f"  {line}\n" + SCORE + OUT + "}": ("A0101", at, "a comment begins with `#`")
        for line, at in {"// causal": "//", "/* causal */": "/", "-- causal": "-"}.items()
    },
    HEAD.replace("->", "=>") + SCORE + OUT + "}": ("A0101", "=>", "outputs follow `->`"),
    HEAD.replace(" -> O[b,h,i,f]", "") + SCORE + OUT + "}": ("A0101", "{", "outputs follow `->`"),
    HEAD.replace("K[b,h,", "K[b,h/G,") + SCORE + OUT + "}": ("A0208", "h/G", "`h//G`"),
    HEAD + SCORE + "}": ("A0260", "O[b,h,i,f]", "assign it in the body"),
}
PROGRAMS = {
    **{HEAD + SCORE.replace("where j <= i", c) + OUT + "}": w for c, w in CONDITIONS.items()},
    **{HEAD + SCORE + f"  {line}\n" + OUT + "}": w for line, w in LINES.items()},
    **HEADERS,
}


@pytest.mark.parametrize("text", PROGRAMS)
def test_a_habit_of_another_language_gets_help(text: str) -> None:
    code, at, help = PROGRAMS[text]
    with pytest.raises(attndsl.DiagnosticError) as error:
        attndsl.compile(text)
    found = error.value.diagnostics[0]
    assert found.code == code
    assert found.span is not None
    assert text[found.span.start : found.span.end] == at
    assert help in (found.help or "")
