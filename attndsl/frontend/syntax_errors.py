"""Syntax errors in the user's terms: what people really mistype, recognised by the tokens around the place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import lark

from attndsl.diagnostics import Diagnostic
from attndsl.frontend import clause_errors, habits
from attndsl.frontend.vocabulary import KEYWORDS, OPERATORS
from attndsl.source import Source, Span

_TOKEN = re.compile(
    r"(?P<skip>\s+|#[^\n]*)|(?P<name>[^\W\d]\w*)"
    r"|(?P<number>(?:[0-9]+(?:_[0-9]+)*)?\.[0-9]+(?:[eE][+-]?[0-9]+)?"
    r"|[0-9]+(?:_[0-9]+)*\.?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<op>->|<=|>=|==|!=|\*\*|//|.)",
    re.DOTALL,
)
_OPEN = {"(": ")", "[": "]", "{": "}"}
_CLOSE = {v: k for k, v in _OPEN.items()}

# A character that is no part of the language, and what to write for what was meant.
_INSTEAD = {
    "^": "write `**` for a power",
    "&": "write `and`",
    "!": "write `not`, or `!=` to compare",
    "?": "write `a if c else b`",
    "@": "a matrix product is an Einsum: `Q[i,e] * K[j,e]`",
    "~": "write `not`",
    '"': "there are no strings",
    "'": "there are no strings",
    "\\": "lines need no joining: a newline is blank space",
    "×": "write `*`",
    "·": "write `*`",
    "÷": "write `/`",
    "−": "write `-`, the hyphen",
    "–": "write `-`, the hyphen",
    "≤": "write `<=`",
    "≥": "write `>=`",
    "≠": "write `!=`",
    "→": "write `->`",
    "√": "write `sqrt(…)`",
    "∞": "restrict the domain instead: `where`, or a filter in a reduction",
}
_LANGUAGE = frozenset({*"()[]{},:;=+-*/%<>|", "->", "==", "<=", ">=", "!=", "**", "//"})
_FRIENDLY = {
    "NAME": "a name",
    "NUMBER": "a number",
    "CMP": "a comparison",
    "SIGN": "`+` or `-`",
    "MUL": "`*` or `/`",
    "POW": "`**`",
    "EQUAL": "`=`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "COMMA": "`,`",
    "COLON": "`:`",
    "VBAR": "`|`",
    "ARROW": "`->`",
    "$END": "the end",
}


@dataclass(frozen=True, slots=True)
class Tok:
    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where parsing stopped: the tokens before, the offending one (None at the end), and what would do."""

    source: Source
    before: list[Tok]
    at: Tok | None
    end: int
    expected: frozenset[str]

    def span(self, first: Tok | None = None, last: Tok | None = None) -> Span:
        first = first or self.at
        if first is None:
            return Span(self.source, self.end, self.end)
        return Span(self.source, first.start, (last or first).end)

    def back(self, n: int = 1) -> Tok | None:
        return self.before[-n] if len(self.before) >= n else None


def explain(
    error: lark.exceptions.UnexpectedInput, source: Source, start: int, end: int
) -> Diagnostic:
    """The diagnostic for Lark's complaint about `source.text[start:end]`."""
    token = getattr(error, "token", None)
    if token is not None and token.type != "$END":
        at = start + token.start_pos
    elif isinstance(error, lark.exceptions.UnexpectedCharacters):
        at = start + (error.pos_in_stream or 0)
    else:
        at = end
    tokens = tokenize(source.text, start, end)
    before = [t for t in tokens if t.start < at]
    offending = next((t for t in tokens if t.start >= at), None)
    expected = frozenset(getattr(error, "accepts", None) or getattr(error, "expected", None) or ())
    while end > start and source.text[end - 1].isspace():
        end -= 1
    place = Place(source, before, offending, end, expected)
    for rule in _RULES:
        found = rule(place)
        if found is not None:
            return found
    return _generic(place)


def tokenize(text: str, start: int, end: int) -> list[Tok]:
    """Roughly the parser's tokens; any character makes one, so this never fails."""
    found = []
    for m in _TOKEN.finditer(text, start, end):
        kind = m.lastgroup or "op"
        if kind != "skip":
            found.append(Tok(kind, m[0], m.start(), m.end()))
    return found


# --- the rules, tried in order -------------------------------------------------------------------


def _foreign_character(p: Place) -> Diagnostic | None:
    if p.at is None or p.at.kind != "op":
        return None
    if "||" in p.source.text[max(p.at.start - 1, 0) : p.at.end + 1]:
        return Diagnostic("A0109", "`||` is no part of the language", p.span(), help="write `or`")
    if p.at.text in _LANGUAGE:
        return None
    code = "A0104" if p.at.text == "^" else "A0109"
    shown = p.at.text if p.at.text.isprintable() else f"U+{ord(p.at.text):04X}"
    title = (
        "a power is written with `**`"
        if code == "A0104"
        else f"`{shown}` is no part of the language"
    )
    return Diagnostic(code, title, p.span(), "not expected here", _INSTEAD.get(p.at.text))


def _number_into_name(p: Place) -> Diagnostic | None:
    tokens = p.before if p.at is None else [*p.before, p.at]
    for a, b in pairwise(tokens):
        if a.kind != "number" or a.end != b.start:
            continue
        if b.kind == "name":
            help = f"write `{a.text} * {b.text}` for a product"
            return Diagnostic(
                "A0111", "a number runs into a name", p.span(a, b), "an operator is missing", help
            )
        if b.kind == "number" or b.text == ".":
            return Diagnostic("A0111", "a number is malformed", p.span(a, b), "two points")
    return None


def _reduction_without_parenthesis(p: Place) -> Diagnostic | None:
    """`sum[j] S[i,j]` parses up to some token after `S`, so the culprit is looked for before."""
    for k in range(len(p.before) - 1, -1, -1):
        if p.before[k].text == "=" and p.before[k - 1].text == "]" and k < len(p.before) - 12:
            break
        if p.before[k].text not in OPERATORS or k + 1 >= len(p.before):
            continue
        close = _closing(p.before, k + 1)
        if close is None:
            continue
        after = p.before[close + 1] if close + 1 < len(p.before) else p.at
        if after is not None and after.text != "(":
            head, tail = p.before[k], p.before[close]
            text = p.source.text[head.start : tail.end]
            return Diagnostic(
                "A0103",
                f"`{head.text}[…]` without its argument",
                p.span(head, tail),
                "an opening parenthesis is missing after it",
                f"write `{text}(…)`, with parentheses",
            )
    return None


def _equal_sign(p: Place) -> Diagnostic | None:
    if p.at is None:
        return None
    if p.at.text == "=" and _in_condition(p.before):
        return Diagnostic(
            "A0105", "`=` in a condition", p.span(), "this assigns", "write `==` to compare"
        )
    if p.at.text == "==" and "EQUAL" in p.expected:
        return Diagnostic(
            "A0105", "`==` in the place of `=`", p.span(), "this compares", "write `=` to assign"
        )
    after = p.source.text[p.at.end : p.at.end + 1]
    if p.at.text == ":" and after == "=":
        span = Span(p.source, p.at.start, p.at.end + 1)
        return Diagnostic(
            "A0105",
            "`:=` in the place of `=`",
            span,
            "no part of the language",
            "write `=` to assign",
        )
    if p.at.text in ("+", "-", "*", "/", "**", "//") and "EQUAL" in p.expected and after == "=":
        return Diagnostic(
            "A0105",
            f"`{p.at.text}=` changes a tensor",
            Span(p.source, p.at.start, p.at.end + 1),
            "every tensor is assigned once",
            "give the result a name of its own",
        )
    return None


def _unclosed(p: Place) -> Diagnostic | None:
    """A bracket that is closed by another, or by nothing."""
    stack: list[Tok] = []
    for t in p.before:
        if t.text in _OPEN:
            stack.append(t)
        elif t.text in _CLOSE and stack and stack[-1].text == _CLOSE[t.text]:
            stack.pop()
    inner = stack[-1] if stack else None
    if p.at is not None and p.at.text in _CLOSE:
        if inner is None or (inner.text == "{" and p.at.text != "}"):
            return Diagnostic(
                "A0106", f"`{p.at.text}` closes nothing", p.span(), "no such bracket is open here"
            )
        if inner.text == _CLOSE[p.at.text]:
            return None
        if p.at.text != "}":
            return Diagnostic(
                "A0106",
                f"`{inner.text}` is closed by `{p.at.text}`",
                p.span(),
                f"expected `{_OPEN[inner.text]}`",
                notes=(f"`{inner.text}` was opened on line {p.span(inner).line}",),
            )
    if inner is None or not _cut_off(p, inner):
        return None
    return Diagnostic(
        "A0106",
        f"`{inner.text}` is never closed",
        p.span(inner),
        "opened here",
        f"add the missing `{_OPEN[inner.text]}`",
    )


def _cut_off(p: Place, inner: Tok) -> bool:
    """Whether the text goes on as if the innermost bracket were closed."""
    if p.at is None or p.at.text in ("attention", "def"):
        return True
    if inner.text == "{":
        return False
    if p.at.text in ("}", "=", *_STATEMENTS):
        return True
    last = p.back()
    fresh_line = last is not None and "\n" in p.source.text[last.end : p.at.start]
    return fresh_line and p.at.kind == "name"


_STATEMENTS = ("batch", "rank", "assume", "where", "init")


def _keyword_as_name(p: Place) -> Diagnostic | None:
    last = p.back()
    for t in (p.at, last):
        if t is None or t.text not in KEYWORDS - {"True", "False", "not"}:
            continue
        here = t is p.at and "NAME" in p.expected and not _starts_expression(p, t)
        past = t is last and p.at is not None and p.at.text in ("[", "=", ",", ")", "]", ":")
        if here or past:
            return Diagnostic(
                "A0112",
                f"`{t.text}` is a keyword of the language",
                p.span(t),
                "a name is expected here" if here else "used as a name here",
                f"choose another name, such as `{t.text}_`",
            )
    return None


def _starts_expression(p: Place, t: Tok) -> bool:
    """`where`, `init`, … after an operator: an operand is missing, rather than a name badly chosen."""
    last = p.back()
    if last is None:
        return False
    if last.text in ("else", "if", "and", "or", "not"):
        return True
    return last.kind == "op" and last.text not in ("[", "(", ",", "|", "{", ";")


def _conditional_without_else(p: Place) -> Diagnostic | None:
    if "ELSE" not in p.expected:
        return None
    conditional = next((t for t in reversed(p.before) if t.text == "if"), None)
    if conditional is None:
        return None
    return Diagnostic(
        "A0113",
        "`if` without `else`",
        p.span(conditional),
        "no value is given for the other case",
        "write `a if c else b`; where a tensor is defined is said with `where`",
    )


def _operator_missing(p: Place) -> Diagnostic | None:
    """`Q[i,e] K[j,e]`: the second name looks like the next statement, until no `=` follows."""
    if p.expected and not p.expected <= {"EQUAL", "LSQB", "COLON"}:
        return None
    k = len(p.before) - 1
    if k >= 0 and p.before[k].text == "]":
        depth = 0
        while k >= 0:
            depth += {"]": 1, "[": -1}.get(p.before[k].text, 0)
            k -= 1
            if depth == 0:
                break
    if k < 1 or p.before[k].kind != "name" or p.before[k].text in KEYWORDS:
        return None
    name, last = p.before[k], p.before[k - 1]
    if (last.kind == "op" and last.text not in ("]", ")", "|")) or last.text in KEYWORDS:
        return None
    return Diagnostic(
        "A0101",
        f"`{name.text}` is neither an operand nor a statement",
        p.span(name),
        "an operator is missing before it, or `=` after it",
        habits.continued(p, name, last),
    )


_RULES: tuple[Callable[[Place], Diagnostic | None], ...] = (
    habits.comparison,
    habits.dot,
    _foreign_character,
    _number_into_name,
    _reduction_without_parenthesis,
    clause_errors.cut_off,
    clause_errors.misplaced,
    clause_errors.filter_without_colon,
    clause_errors.parentheses_for_brackets,
    habits.slice_,
    habits.bar,
    _equal_sign,
    _keyword_as_name,
    _unclosed,
    _conditional_without_else,
    _operator_missing,
    habits.comment,
    habits.number_after,
    habits.no_outputs,
)


def _generic(p: Place) -> Diagnostic:
    expected = p.expected - {"SEMICOLON"}
    friendly = sorted({_FRIENDLY.get(e, f"`{e.lower()}`") for e in expected})
    if "a name" in friendly and "a number" in friendly:
        label = "expected an expression"
    elif 0 < len(friendly) <= 6:
        label = "expected " + (
            friendly[0] if len(friendly) == 1 else f"{', '.join(friendly[:-1])} or {friendly[-1]}"
        )
    else:
        label = "not expected here"
    if p.at is None:
        return Diagnostic("A0101", "the program ends too early", p.span(), label)
    help = None
    if not p.before and p.at.kind == "name":
        help = "a program is `attention NAME(inputs) -> outputs { statements }`"
    return Diagnostic("A0101", f"unexpected `{p.at.text}`", p.span(), label, help)


# --- helpers -------------------------------------------------------------------------------------


def _closing(tokens: list[Tok], k: int) -> int | None:
    """The index of the bracket that closes `tokens[k]`, which must be `[`."""
    if k >= len(tokens) or tokens[k].text != "[":
        return None
    depth = 0
    for n in range(k, len(tokens)):
        depth += {"[": 1, "]": -1}.get(tokens[n].text, 0)
        if depth == 0:
            return n
    return None


def _in_condition(before: list[Tok]) -> bool:
    """Whether the last keyword or colon opens a condition."""
    depth = 0
    for t in reversed(before):
        if t.text in _CLOSE:
            depth += 1
        elif t.text in _OPEN:
            depth -= 1
            if t.text == "{":
                return False
        elif depth <= 0:
            if t.text in ("where", "assume", "if", ":"):
                return True
            if t.text in ("=", "init", "rank", "batch", ";"):
                return False
    return False
