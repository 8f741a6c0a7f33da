"""Text to syntax tree.

Lark's tree is turned into ours bottom-up with a loop, never by recursion, so that no nesting overflows the stack; a
depth limit then protects every later stage, which may recurse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

import lark
from lark import Token, Tree

from attndsl.diagnostics import Diagnostic, DiagnosticError
from attndsl.frontend import ast
from attndsl.source import Source, Span

MAX_DEPTH = 100
MAX_DIGITS = 100
MOST_IN_A_ROW = 16  # operands that are joined one after the other; more are joined by halves
MAX_SYNTAX_ERRORS = 10
T = TypeVar("T")


def parse(source: Source) -> ast.File:
    """The syntax tree of a whole program.

        parse(Source("a.attn", "def twice(x) = 2 * x"))

    Raises: DiagnosticError with A01xx codes.
    """
    try:
        file = cast(ast.File, _run(source, "start", 0, len(source.text)))
    except DiagnosticError as first:
        raise DiagnosticError([*first.diagnostics, *_later(source, first)]) from None
    if not file.items:
        raise DiagnosticError(
            Diagnostic(
                "A0102",
                f"`{source.name}` holds no program",
                Span(source, 0, 0),
                "only blank space and comments" if source.text.strip() else "the file is empty",
                "write `attention NAME(inputs) -> outputs { statements }`",
            )
        )
    return file


_ITEM = re.compile(r"^(attention|def)\b", re.MULTILINE)


def _later(source: Source, first: DiagnosticError) -> list[Diagnostic]:
    """The syntax errors of the items after the one that failed."""
    span = first.diagnostics[-1].span
    found: list[Diagnostic] = []
    while span is not None and len(found) < MAX_SYNTAX_ERRORS:
        item = _ITEM.search(source.text, span.end)
        if item is None:
            break
        try:
            _run(source, "start", item.start(), len(source.text))
            break
        except DiagnosticError as error:
            found += error.diagnostics
            moved = error.diagnostics[-1].span
            span = moved if moved is not None and moved.end > item.start() else None
    return found


def parse_expr(source: Source, start: int, end: int) -> ast.Expr:
    """The expression written in `source.text[start:end]`, with spans into the whole source."""
    return cast(ast.Expr, _run(source, "expr", start, end))


def parse_subscripts(source: Source, start: int, end: int) -> tuple[ast.Sub, ...]:
    """The subscripts, brackets included, written in `source.text[start:end]`."""
    return cast(tuple[ast.Sub, ...], _run(source, "subscripts", start, end))


def parse_axes(source: Source, start: int, end: int) -> tuple[ast.Expr, ...]:
    """The axes (`b, h//G, j, e`) written in `source.text[start:end]`."""
    return cast(tuple[ast.Expr, ...], _run(source, "axes", start, end))


def _run(source: Source, rule: str, start: int, end: int) -> object:
    from attndsl.frontend.table import parser  # here, so that `python -m` can run that module

    text = source.text[start:end]
    if rule != "start":  # a piece of a Python function, where a backslash joins lines
        text = text.replace("\\\n", " \n")
    try:
        tree = parser().parse(text, start=rule)
    except lark.exceptions.UnexpectedInput as error:
        from attndsl.frontend.syntax_errors import explain  # a program that parses need not load it

        raise DiagnosticError(explain(error, source, start, end)) from None
    return _Builder(source, start).build(tree)


class _Builder:
    """Turns Lark's tree into ours; `offset` is where the parsed text begins in the source."""

    def __init__(self, source: Source, offset: int) -> None:
        self.source = source
        self.offset = offset

    def build(self, tree: Tree[Token]) -> object:
        made: dict[int, object] = {}
        depth: dict[int, int] = {}
        for node in _bottom_up(tree):
            parts = _chain(node) or node.children
            kids: list[Any] = [made[id(k)] if isinstance(k, Tree) else k for k in parts]
            deepest = max((depth.get(id(k), 0) for k in parts), default=0)
            deepest += node.data not in _NO_LEVEL
            if parts is not node.children:
                deepest += MOST_IN_A_ROW + len(parts).bit_length()
            depth[id(node)] = deepest
            span = self.span(node)
            if deepest > MAX_DEPTH:
                raise DiagnosticError(
                    Diagnostic(
                        "A0107",
                        f"an expression is nested more than {MAX_DEPTH} levels deep",
                        Span(self.source, span.start, span.start + 1),
                        "starts here",
                        "give parts of it names of their own (`T[i,j] = …`)",
                    )
                )
            made[id(node)] = (
                _MAKE[node.data](self, kids, span) if parts is node.children else _halved(kids)
            )
        return made[id(tree)]

    def span(self, node: Tree[Token]) -> Span:
        if node.meta.empty:
            return Span(self.source, self.offset, self.offset)
        return Span(self.source, node.meta.start_pos + self.offset, node.meta.end_pos + self.offset)

    def ident(self, token: Token) -> ast.Ident:
        assert token.start_pos is not None
        assert token.end_pos is not None
        start, end = token.start_pos + self.offset, token.end_pos + self.offset
        return ast.Ident(str(token), span=Span(self.source, start, end))


# Rules of the grammar that are no expressions: they add nothing to the depth.
_NO_LEVEL = frozenset(
    {"start", "attention", "block", "assign", "where", "init", "function", "declaration", "dims"}
    | {"axes", "arguments", "subscripts", "subscript", "keyword", "binding", "rank", "assume"}
)


def _bottom_up(tree: Tree[Token]) -> list[Tree[Token]]:
    """Every subtree, children before their parents."""
    order: list[Tree[Token]] = []
    stack = [tree]
    while stack:
        top = stack.pop()
        order.append(top)
        stack.extend(k for k in _chain(top) or top.children if isinstance(k, Tree))
    return order[::-1]


def _chain(node: Tree[Token]) -> list[Tree[Token] | Token] | None:
    """`a + b - c …`, or of `and` or `or`: operands and what joins them, where many stand side by side."""
    kind = _joined_by(node)
    if kind is None:
        return None
    parts: list[Tree[Token] | Token] = []
    at: Tree[Token] | Token = node
    while isinstance(at, Tree) and _joined_by(at) == kind:
        *_, right = at.children
        parts += (right, at.children[1] if kind == "sum" else Token("NAME", kind))
        at = at.children[0]
    return [at, *reversed(parts)] if len(parts) > 2 * MOST_IN_A_ROW else None


def _joined_by(node: Tree[Token]) -> str | None:
    match node.data:
        case "or_" | "and_":
            return str(node.data)[:-1]
        case "binary" if node.children[1] in ("+", "-"):
            return "sum"
        case _:
            return None


def _halved(parts: list[Any]) -> ast.Expr:
    """A long chain as a tree that is no deeper than it must be.

    rewrite:  a - b + c - d   ->   (a - b) + (c - d);   a + b - c - d   ->   (a + b) - (c + d)
    """
    if len(parts) <= 2 * MOST_IN_A_ROW:
        made: ast.Expr = parts[0]
        for op, right in zip(parts[1::2], parts[2::2], strict=True):
            made = _joined(str(op), made, right)
        return made
    middle = len(parts) // 4 * 2 + 1
    op, right = str(parts[middle]), parts[middle + 1 :]
    if op == "-":
        right[1::2] = [{"+": "-", "-": "+"}[x] for x in right[1::2]]
    return _joined(op, _halved(parts[:middle]), _halved(right))


def _joined(op: str, left: ast.Expr, right: ast.Expr) -> ast.Expr:
    span = left.span.to(right.span) if left.span is not None and right.span is not None else None
    kind = ast.BoolOp if op in ("and", "or") else ast.Binary
    return kind(op, left, right, span=span)


def _of(kids: list[Any], kind: type[T]) -> tuple[T, ...]:
    return tuple(k for k in kids if isinstance(k, kind))


def _present(kids: list[Any]) -> tuple[Any, ...]:
    return tuple(k for k in kids if k is not None)


def _attention(b: _Builder, kids: list[Any], span: Span) -> ast.Attention:
    name, *parts, block = _present(kids)
    arrow = next(k for k, x in enumerate(parts) if isinstance(x, Token))
    return ast.Attention(
        b.ident(name), tuple(parts[:arrow]), tuple(parts[arrow + 1 :]), block, span=span
    )


def _args(kids: tuple[Any, ...]) -> tuple[tuple[ast.Expr, ...], tuple[ast.Keyword, ...]]:
    flat = [x for group in kids if group is not None for x in group]
    plain = tuple(x for x in flat if not isinstance(x, ast.Keyword))
    return plain, _of(flat, ast.Keyword)


def _function(b: _Builder, kids: list[Any], span: Span) -> ast.Function:
    name, *params, body = _present(kids)
    return ast.Function(b.ident(name), tuple(b.ident(p) for p in params), body, span=span)


def _declaration(b: _Builder, kids: list[Any], span: Span) -> ast.Decl:
    name, dims, kind, default = kids
    return ast.Decl(
        b.ident(name),
        dims,
        b.ident(kind) if kind is not None else None,
        default,
        span=span,
    )


def _assign(b: _Builder, kids: list[Any], span: Span) -> ast.Assign:
    name, subs, expr, where, init = kids
    return ast.Assign(b.ident(name), subs or (), expr, where or (), init, span=span)


def _compare(_: _Builder, kids: list[Any], span: Span) -> ast.Compare:
    return ast.Compare(tuple(kids[::2]), tuple(str(op) for op in kids[1::2]), span=span)


def _big(_: _Builder, kids: list[Any], span: Span) -> ast.Big:
    name, subs, arguments = kids
    args, keywords = _args((arguments,))
    return ast.Big(str(name), subs, args, keywords, span=span)


def _call(_: _Builder, kids: list[Any], span: Span) -> ast.Call:
    args, keywords = _args((kids[1],))
    return ast.Call(str(kids[0]), args, keywords, span=span)


def _number(_: _Builder, kids: list[Any], span: Span) -> ast.Num:
    number = ast.Num(str(kids[0]), span=span)
    if len(number.text) > MAX_DIGITS:
        raise DiagnosticError(
            Diagnostic("A0111", f"a number has more than {MAX_DIGITS} digits", span, "too long")
        )
    if not math.isfinite(number.value):
        raise DiagnosticError(
            Diagnostic("A0111", "a number is too large", span, "overflows a double")
        )
    if isinstance(number.value, int) and number.value >= 2**63:
        raise DiagnosticError(
            Diagnostic("A0111", "an integer is too large", span, "needs more than 64 bits")
        )
    return number


_MAKE: dict[str, Callable[[_Builder, list[Any], Span], object]] = {
    "start": lambda b, k, s: ast.File(tuple(k), span=s),
    "function": _function,
    "attention": _attention,
    "block": lambda b, k, s: tuple(k),
    "declaration": _declaration,
    "dims": lambda b, k, s: _present(k),
    "axes": lambda b, k, s: tuple(k),
    "assign": _assign,
    "where": lambda b, k, s: tuple(k),
    "init": lambda b, k, s: k[0],
    "batch": lambda b, k, s: ast.Batch(tuple(b.ident(t) for t in k), span=s),
    "rank": lambda b, k, s: ast.RankDecl(tuple(k), span=s),
    "binding": lambda b, k, s: ast.Binding(b.ident(k[0]), k[1], span=s),
    "assume": lambda b, k, s: ast.Assume(tuple(k), span=s),
    "ifexp": lambda b, k, s: ast.IfExp(k[0], k[1], k[2], span=s),
    "or_": lambda b, k, s: ast.BoolOp("or", k[0], k[1], span=s),
    "and_": lambda b, k, s: ast.BoolOp("and", k[0], k[1], span=s),
    "not_": lambda b, k, s: ast.Unary("not", k[0], span=s),
    "compare": _compare,
    "binary": lambda b, k, s: ast.Binary(str(k[1]), k[0], k[2], span=s),
    "sign": lambda b, k, s: ast.Unary(str(k[0]), k[1], span=s),
    "number": _number,
    "true": lambda b, k, s: ast.Bool(True, span=s),
    "false": lambda b, k, s: ast.Bool(False, span=s),
    "name": lambda b, k, s: ast.Name(str(k[0]), span=s),
    "extent": lambda b, k, s: ast.ExtentOf(str(k[0]), span=s),
    "ref": lambda b, k, s: ast.Ref(str(k[0]), k[1], span=s),
    "big": _big,
    "call": _call,
    "paren": lambda b, k, s: ast.Paren(k[0], span=s),
    "subscripts": lambda b, k, s: _present(k),
    "subscript": lambda b, k, s: ast.Sub(k[0], k[1], span=s),
    "arguments": lambda b, k, s: _present(k),
    "keyword": lambda b, k, s: ast.Keyword(str(k[0]), k[1], span=s),
}
