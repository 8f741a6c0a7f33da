"""What people bring from other languages: comparisons spelt otherwise, loops, comments, slices, dots, functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attndsl.diagnostics import Diagnostic
from attndsl.frontend.vocabulary import FUNCTIONS, OPERATORS
from attndsl.source import Span

if TYPE_CHECKING:
    from attndsl.frontend.syntax_errors import Place, Tok

COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!="})
_SPELT = {"=<": "<=", "=>": ">=", "<>": "!="}

# A word that begins a statement elsewhere, and how the language says it.
_STATEMENTS = {
    "for": "there are no loops: a statement holds at every point of its indices, and reductions name theirs",
    "while": "there are no loops: a recurrence reads its own past, `H[t-1]`",
    "return": "an output is assigned by its name, and declared after `->`",
    "let": "a statement is `T[i,j] = …`",
    "var": "a statement is `T[i,j] = …`",
    "lambda": "a named expression is a `def` before the `attention`: `def f(x) = …`",
    "import": "a file holds `attention`s and `def`s alone",
}

# A function of PyTorch or Python, and how the language says it.
INSTEAD = {
    "len": "an extent is written `|e|`",
    "mean": "divide a sum by its number of points: `sum[j](…) / |j|`",
    "clamp": "write `min(max(x, lo), hi)`",
    "clip": "write `min(max(x, lo), hi)`",
    "pow": "write `x**y`",
    "square": "write `x**2`",
    "norm": "write `sqrt(sum[e](x[e]**2))`",
    "maximum": "write `max(a, b)`",
    "minimum": "write `min(a, b)`",
    "select": "write `a if c else b`",
    "matmul": "a product is an Einsum: `Q[i,e] * K[j,e]`",
    "dot": "a product is an Einsum: `Q[i,e] * K[j,e]`",
    "einsum": "every statement is an Einsum: `Q[i,e] * K[j,e]`",
    "log_softmax": "write `S[i,j] - logsumexp[j](S[i,j])`",
    "cumsum": "a running sum is a filter: `sum[l : l <= j](…)`",
    "argmax": "compare with the maximum: `S[i,j] == max[j](S[i,j])`",
    "dropout": "nothing is random: pass the mask as an input",
}


def comparison(p: Place) -> Diagnostic | None:
    """`=<`, `=>` and `<>`."""
    if p.at is None:
        return None
    text = p.source.text
    for start in (p.at.start, p.at.start - 1):
        pair = text[max(start, 0) : start + 2]
        if pair == "=>" and "ARROW" in p.expected:
            help = "outputs follow `->`"
        elif pair in _SPELT:
            help = f"did you mean `{_SPELT[pair]}`?"
        else:
            continue
        return Diagnostic(
            "A0101", f"unexpected `{pair}`", Span(p.source, start, start + 2), "no operator", help
        )
    return None


def bar(p: Place) -> Diagnostic | None:
    """`a | b` for `or`, `sum[j | j <= i]` for a filter, and `|x[i]|` for an absolute value."""
    if p.at is None:
        return None
    last, opened, head = p.back(), p.back(2), p.back(3)
    if p.at.text == "|" and last is not None and last.text != "|" and "ELSE" not in p.expected:
        help = "write `or` between conditions"
        filtered = opened is not None and opened.text == "["
        if filtered and head is not None and head.text in OPERATORS:
            help = f"write `{head.text}[{last.text} : …](…)`"
        label = "bars give the extent of an index, as in `|e|`"
        return Diagnostic("A0101", "unexpected `|`", p.span(), label, help)
    if p.expected == {"VBAR"}:
        help = "write `abs(…)` for an absolute value"
        return Diagnostic("A0101", f"unexpected `{p.at.text}`", p.span(), "expected `|`", help)
    return None


def comment(p: Place) -> Diagnostic | None:
    """`// …`, `/* … */` and `-- …` where a statement may begin."""
    if p.at is None or "NAME" not in p.expected:
        return None
    if p.source.text[p.at.start : p.at.start + 2] not in ("//", "/*", "--"):
        return None
    return Diagnostic(
        "A0101",
        f"unexpected `{p.at.text}`",
        p.span(),
        "not expected here",
        "a comment begins with `#`",
    )


def dot(p: Place) -> Diagnostic | None:
    """`math.sqrt(x)`, `K.T`, `e.size`, `K[...]`."""
    if p.at is None or p.at.text != ".":
        return None
    text = p.source.text[p.at.end :]
    word = text[: next((k for k, x in enumerate(text) if not x.isidentifier()), len(text))]
    if text.startswith(".."):
        help = "every index is written: `K[j,e]`"
    elif word in FUNCTIONS or word in OPERATORS:
        help = f"functions stand alone: `{word}`"
    elif word in ("T", "mT", "transpose", "permute", "t"):
        help = "a transpose is a read: the indices say which axis meets which"
    elif word in ("shape", "size"):
        help = "an extent is written `|e|`"
    else:
        help = INSTEAD.get(word, "names have no parts")
    return Diagnostic(
        "A0109", "`.` is no part of the language", p.span(), "not expected here", help
    )


def slice_(p: Place) -> Diagnostic | None:
    """`K[:, e]`."""
    last = p.back()
    if p.at is None or p.at.text != ":" or last is None or last.text not in ("[", ","):
        return None
    return Diagnostic(
        "A0101",
        "unexpected `:`",
        p.span(),
        "expected an index",
        "there are no slices: every axis has an index, and `max[j](…)` reduces it",
    )


def number_after(p: Place) -> Diagnostic | None:
    """`S[i,j] = Q[i,e] * K[j,e] 0 <= i - j`."""
    last = p.back()
    if p.at is None or last is None or last.text not in ("]", ")", "|"):
        return None
    if p.at.kind != "number" and p.at.text != "not":
        return None
    return Diagnostic(
        "A0101",
        f"unexpected `{p.at.text}`",
        p.span(),
        "an operator is missing before it",
        "write `*` for a product, `where` before a condition",
    )


def no_outputs(p: Place) -> Diagnostic | None:
    """`attention a(…) { … }`."""
    if p.at is None or p.expected != {"ARROW"}:
        return None
    title, help = (
        f"unexpected `{p.at.text}`",
        "outputs follow `->`: `attention a(…) -> O[i,f] { … }`",
    )
    return Diagnostic("A0101", title, p.span(), "expected `->`", help)


def continued(p: Place, name: Tok, last: Tok) -> str | None:
    """What helps where `name` follows an expression that ends with `last`."""
    for word in (name.text, last.text):
        if word in _STATEMENTS:
            return _STATEMENTS[word]
    if p.at is not None and p.at.text in (*COMPARISONS, "and", "or"):
        return "a condition begins with `where`"
    if last.text in ("]", ")", "|") or last.kind in ("name", "number"):
        return "write `*` for a product, `where` before a condition"
    return None
