"""Syntax errors around clauses: `where` and `init` out of place, filters without a colon, statements cut off."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attndsl.diagnostics import Diagnostic
from attndsl.frontend.vocabulary import OPERATORS

if TYPE_CHECKING:
    from attndsl.frontend.syntax_errors import Place, Tok

_WANTING = frozenset({"where", "init", "if", "else", "and", "or", "not", ",", "=", ":"})
_CALLED = re.compile(r"\([^()]*\)\s*=(?!=)")


def cut_off(p: Place) -> Diagnostic | None:
    """`S[i,j] = Q[i,e]*K[j,e] where` and the next statement: its `=` is where the parser stops."""
    if p.at is None or p.at.text != "=":
        return None
    head = _head(p.before)
    if head is None or head == 0:
        return None
    last = p.before[head - 1]
    if last.text not in _WANTING or not _fresh_line(p, last, p.before[head]):
        return None
    return Diagnostic(
        "A0101",
        f"nothing follows `{last.text}`",
        p.span(last),
        "the next statement begins after it",
        "remove it, or write what is missing",
    )


def misplaced(p: Place) -> Diagnostic | None:
    """`where` and `init` stand once each, in this order, at the end of a statement."""
    if p.at is None or p.at.text not in ("where", "init"):
        return None
    word, inner, had = p.at.text, _innermost(p.before), _clauses(p.before)
    if word == "where" and inner is not None and _filtered(p, inner):
        return _no_colon(p, inner)
    if word == "where" and p.source.text[p.at.end :].lstrip()[:1] == "(" and not had:
        last = p.back()
        if last is not None and last.text in (*_WANTING, "+", "-", "*", "/", "("):
            title, help = "`where` is no function", "write `a if c else b`"
            return Diagnostic("A0101", title, p.span(), "an expression is expected", help)
    if word in had:
        help = "join conditions with `,` or `and`" if word == "where" else "keep one of them"
        return Diagnostic("A0101", f"a second `{word}`", p.span(), "this statement has one", help)
    if had:
        title, help = "`where` after `init`", "write `… where … init …`"
        return Diagnostic("A0101", title, p.span(), "it comes before", help)
    last = p.back()
    if last is None or last.text in ("{", ";") or _declares(p.before):
        title, help = f"`{word}` without an expression", f"write `T[…] = … {word} …`"
        return Diagnostic("A0101", title, p.span(), "it ends a statement", help)
    return None


def filter_without_colon(p: Place) -> Diagnostic | None:
    """`sum[j if j <= i](…)` and `sum[j = 0](…)`."""
    inner = _innermost(p.before)
    if p.at is None or inner is None or not _filtered(p, inner):
        return None
    inside = p.before[p.before.index(inner) + 1 :]
    plain = len(inside) >= 1 and all(t.kind == "name" or t.text == "," for t in inside[:1])
    if plain and (p.at.text == "=" or (len(inside) > 1 and inside[1].text == "if")):
        return _no_colon(p, inner, inside[1] if len(inside) > 1 else p.at)
    return None


def parentheses_for_brackets(p: Place) -> Diagnostic | None:
    """`S(i,j) = …`."""
    last = p.back()
    if p.at is None or p.at.text != "(" or last is None or last.kind != "name":
        return None
    if "LSQB" not in p.expected or _CALLED.match(p.source.text, p.at.start) is None:
        return None
    return Diagnostic(
        "A0101",
        f"the indices of `{last.text}` stand in parentheses",
        p.span(),
        "`(` calls a function",
        f"write `{last.text}[…] = …`",
    )


# --- helpers -------------------------------------------------------------------------------------


def _no_colon(p: Place, inner: Tok, at: Tok | None = None) -> Diagnostic:
    head = p.before[p.before.index(inner) - 1].text
    return Diagnostic(
        "A0101",
        f"a filter of `{head}` without its colon",
        p.span(at),
        f"in the brackets of `{head}`",
        f"write `{head}[j : j <= i](…)`",
    )


def _filtered(p: Place, inner: Tok) -> bool:
    """Whether a bracket is that of a reduction, without a colon so far."""
    k = p.before.index(inner)
    inside = p.before[k + 1 :]
    reduction = inner.text == "[" and k > 0 and p.before[k - 1].text in OPERATORS
    return reduction and all(t.text != ":" for t in inside)


def _innermost(before: list[Tok]) -> Tok | None:
    """The last bracket that is open."""
    depth = 0
    for t in reversed(before):
        if t.text in (")", "]", "}"):
            depth += 1
        elif t.text in ("(", "[", "{"):
            if depth == 0:
                return t
            depth -= 1
    return None


def _clauses(before: list[Tok]) -> list[str]:
    """The clauses of the statement so far."""
    found: list[str] = []
    for t in reversed(before):
        if t.text in ("=", ";", "{"):
            break
        if t.text in ("where", "init"):
            found.append(t.text)
    return found


def _declares(before: list[Tok]) -> bool:
    """Whether the last statement is a `batch` or an `assume`, which takes no clause."""
    for t in reversed(before):
        if t.text in ("=", ";", "{"):
            return False
        if t.text in ("batch", "assume"):
            return True
    return False


def _head(before: list[Tok]) -> int | None:
    """Where `NAME` or `NAME[…]` at the end begins."""
    k = len(before) - 1
    if k >= 0 and before[k].text == "]":
        while k >= 0 and before[k].text != "[":
            k -= 1
        k -= 1
    return k if k >= 0 and before[k].kind == "name" else None


def _fresh_line(p: Place, a: Tok, b: Tok) -> bool:
    return "\n" in p.source.text[a.end : b.start]
