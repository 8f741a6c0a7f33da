"""`@attention_spec`: the same language inside a Python function.

    @attention_spec
    def alibi(Q: Tensor["b,h,i,e"], K: Tensor["b,h//G,j,e"], V: Tensor["b,h//G,j,f"], slope: Tensor["h"], G: int
              ) -> Tensor["b,h,i,f"]:
        batch(b, h)
        S[i, j : j <= i] = Q[i, e] * K[j, e] / sqrt(len(e)) - slope * (i - j)
        O[i, f] = softmax[j](S[i, j]) * V[j, f]
        return O

Python's `ast` finds the statements; their expressions are parsed from the text by the language's own grammar, so both
forms mean the same to the letter. Differences: `len(e)` is `|e|`; `batch`, `rank` and `assume` are calls; a domain is a
filter on the left side, or `S[i, j]: where(j <= i) = …`; a recurrence starts with `H[t, e]: init(0) = …`.
"""

from __future__ import annotations

import ast as py
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from attndsl.cascade.nodes import Cascade
from attndsl.diagnostics import Diagnostic, DiagnosticError
from attndsl.frontend import ast
from attndsl.frontend.parser import parse_axes, parse_expr, parse_subscripts
from attndsl.frontend.vocabulary import TYPES
from attndsl.source import Source, Span


@dataclass(frozen=True, slots=True)
class Spec:
    """What a function was read as."""

    source: Source
    file: ast.File
    cascade: Cascade
    diagnostics: tuple[Diagnostic, ...]


def spec_from_function(fn: Callable[..., Any], *, batch: str | None = None) -> Spec:
    """The program that a function's body is; `batch="b, h"` stands for `batch(b, h)` in it.

    Raises: DiagnosticError, with spans into the Python file.
    """
    from attndsl.frontend import check_file

    source, file = parse_function(fn, batch=batch)
    result = check_file(file)
    if not result.ok:
        raise DiagnosticError(result.diagnostics)
    return Spec(source, file, result.cascades[0], result.diagnostics)


def parse_function(fn: Callable[..., Any], *, batch: str | None = None) -> tuple[Source, ast.File]:
    """The text and the syntax tree of a function.

    Raises: DiagnosticError (A01xx) where it holds more than the language.
    """
    try:
        lines, first = inspect.getsourcelines(fn)
        name = inspect.getsourcefile(fn) or "<python>"
    except (OSError, TypeError) as error:
        raise DiagnosticError(
            Diagnostic(
                "A0114",
                f"the text of `{getattr(fn, '__name__', fn)}` is not available",
                help="write the function in a file: its body is read, not run",
                notes=(str(error),),
            )
        ) from None
    source = Source(name, "".join(lines), first_line=first)
    return source, _Reader(source).read(batch)


class _Reader:
    """Reads one function; every place is an offset into the source's text."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.starts = [0]
        for line in source.text.split("\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)
        # An indented function (a method, a closure) parses inside a block that is put before it.
        indented = source.text[:1].isspace()
        self.shift = 1 if indented else 0
        try:
            tree = py.parse("if 1:\n" + source.text if indented else source.text)
        except SyntaxError as error:  # a lambda, cut out of the middle of an expression
            raise DiagnosticError(
                Diagnostic(
                    "A0114",
                    "not a function of its own",
                    Span(source, 0, len(source.text.split("\n")[0])),
                    "expected `def NAME(…):`",
                    notes=(str(error.msg),),
                )
            ) from None
        outer = tree.body[0]
        function = outer.body[0] if indented and isinstance(outer, py.If) else outer
        if not isinstance(function, py.FunctionDef):
            self.refuse(function, "not a function", "expected `def NAME(…):`")
        self.function = function
        self.functions: list[ast.Function] = []

    def read(self, batch: str | None) -> ast.File:
        f = self.function
        body = list(self.statements(batch))
        inputs = tuple(self.inputs(f.args))
        outputs = self.outputs(body)
        span = Span(self.source, self.offset(f.lineno, f.col_offset), self.end(f))
        attention = ast.Attention(
            self.name_after(f, "def"), inputs, outputs, tuple(body), span=span
        )
        return ast.File((*self.functions, attention), span=span)

    # --- places ----------------------------------------------------------------------------------

    def offset(self, line: int, column: int) -> int:
        """The character offset of Python's line and UTF-8 column."""
        start = self.starts[line - 1 - self.shift]
        text = self.source.text[start : start + column]  # at least as many characters as bytes
        return start + len(text.encode()[:column].decode(errors="ignore"))

    def start(self, node: py.expr | py.stmt | py.arg) -> int:
        return self.offset(node.lineno, node.col_offset)

    def end(self, node: py.expr | py.stmt | py.arg) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.offset(node.end_lineno, node.end_col_offset)

    def span(self, node: py.expr | py.stmt | py.arg) -> Span:
        return Span(self.source, self.start(node), self.end(node))

    def name_after(self, f: py.FunctionDef, word: str) -> ast.Ident:
        start = self.source.text.index(f.name, self.offset(f.lineno, f.col_offset) + len(word))
        return ast.Ident(f.name, span=Span(self.source, start, start + len(f.name)))

    def refuse(
        self, node: py.expr | py.stmt | py.arg, title: str, label: str = "", help: str = ""
    ) -> NoReturn:
        raise DiagnosticError(
            Diagnostic(
                "A0114",
                title,
                self.span(node),
                label or "not part of the language",
                help or "see `attndsl explain A0114` for the form of such a function",
            )
        )

    # --- expressions -----------------------------------------------------------------------------

    def expr(self, node: py.expr) -> ast.Expr:
        return _extents(parse_expr(self.source, self.start(node), self.end(node)))

    def ident(self, node: py.expr, what: str) -> ast.Ident:
        if not isinstance(node, py.Name):
            self.refuse(node, f"{what} is no name", "expected a name")
        return ast.Ident(node.id, span=self.span(node))

    # --- the signature ---------------------------------------------------------------------------

    def inputs(self, args: py.arguments) -> Iterator[ast.Decl]:
        for star in (args.vararg, args.kwarg):
            if star is not None:
                self.refuse(star, f"`*{star.arg}` declares no input", "every input has a name")
        plain = [*args.posonlyargs, *args.args]
        defaults: list[py.expr | None] = [None] * (len(plain) - len(args.defaults))
        defaults += args.defaults
        for a, default in zip(
            [*plain, *args.kwonlyargs], [*defaults, *args.kw_defaults], strict=True
        ):
            start = self.start(a)
            name = ast.Ident(a.arg, span=Span(self.source, start, start + len(a.arg)))
            if a.annotation is None:
                self.refuse(
                    a,
                    f"`{a.arg}` is not declared",
                    'expected an annotation such as `Tensor["b,h,i,e"]` or `int`',
                )
            dims, kind = self.annotation(a.annotation)
            value = self.expr(default) if default is not None else None
            yield ast.Decl(name, dims, kind, value, span=self.span(a))

    def annotation(self, node: py.expr) -> tuple[tuple[ast.Expr, ...] | None, ast.Ident | None]:
        """Axes and type of `Tensor["…"]`, `Tensor["…", int]`, or `int`."""
        match node:
            case py.Name():
                return None, ast.Ident(node.id, span=self.span(node))
            case py.Subscript(
                value=py.Name(id="Tensor") | py.Attribute(attr="Tensor"),
                slice=py.Constant(value=str()) as axes,
            ):
                return self.axes(axes), None
            case py.Subscript(
                value=py.Name(id="Tensor") | py.Attribute(attr="Tensor"),
                slice=py.Tuple(elts=[py.Constant(value=str()) as axes, py.Name() as kind]),
            ):
                return self.axes(axes), ast.Ident(kind.id, span=self.span(kind))
            case py.Subscript(
                value=py.Name(id="Tensor") | py.Attribute(attr="Tensor"), slice=inside
            ) if not isinstance(inside, py.Constant):
                # Annotations are read, not evaluated, and some tools take the quotes away.
                *axes_of, last = inside.elts if isinstance(inside, py.Tuple) else [inside]
                if isinstance(last, py.Name) and last.id in TYPES:
                    kind_of = ast.Ident(last.id, span=self.span(last))
                    return tuple(map(self.expr, axes_of)), kind_of
                return tuple(map(self.expr, (*axes_of, last))), None
            case _:
                self.refuse(
                    node, "an annotation is no declaration", 'expected `Tensor["b,h,i,e"]` or `int`'
                )

    def axes(self, node: py.Constant) -> tuple[ast.Expr, ...]:
        """The axes written between the quotes."""
        start, end = self.start(node), self.end(node)
        text = self.source.text[start:end]
        if text[:1] not in "\"'" or text[1:-1] != node.value:
            self.refuse(node, "the axes are no plain string", 'expected `"b,h,i,e"`')
        if not text[1:-1].strip():
            return ()
        return parse_axes(self.source, start + 1, end - 1)

    def outputs(self, body: list[ast.Stmt]) -> tuple[ast.Decl, ...]:
        last = self.function.body[-1]
        if not isinstance(last, py.Return) or last.value is None:
            self.refuse(last, "the function returns no output", "expected `return O` after this")
        values = last.value.elts if isinstance(last.value, py.Tuple) else [last.value]
        declared = self.returned()
        if declared is not None and len(declared) != len(values):
            assert self.function.returns is not None
            self.refuse(
                self.function.returns,
                f"{len(declared)} outputs are declared, and {len(values)} returned",
                "one `Tensor[…]` for each returned name",
            )
        batch = [n for s in body if isinstance(s, ast.Batch) for n in s.names]
        made: list[ast.Decl] = []
        for k, value in enumerate(values):
            bare = value.value if isinstance(value, py.Subscript) else value
            if not isinstance(bare, py.Name):
                how = "assign it first, `O[i, f] = …`, and `return O`"
                self.refuse(value, "an output has no name", "an expression is returned", how)
            name = self.ident(bare, "an output")
            if declared is not None:
                dims: tuple[ast.Expr, ...] | None = declared[k]
            elif isinstance(value, py.Subscript):
                own = parse_subscripts(self.source, self.end(value.value), self.end(value))
                lead = tuple(ast.Name(n.name, span=n.span) for n in batch)
                dims = (*lead, *(s.expr for s in own))
            else:
                dims = self.assigned(name, value, body, batch)
            made.append(ast.Decl(name, dims, span=self.span(value)))
        return tuple(made)

    def assigned(
        self, name: ast.Ident, value: py.expr, body: list[ast.Stmt], batch: list[ast.Ident]
    ) -> tuple[ast.Expr, ...]:
        """The axes of an undeclared output: all batch indices, then those of its left side."""
        for s in body:
            if isinstance(s, ast.Assign) and s.target.name == name.name:
                lead = tuple(ast.Name(n.name, span=n.span) for n in batch)
                return (*lead, *(x.expr for x in s.subs))
        self.refuse(value, f"output `{name.name}` is never assigned", "returned here")

    def returned(self) -> list[tuple[ast.Expr, ...]] | None:
        """The axes that the return annotation declares, for each output."""
        node = self.function.returns
        if node is None:
            return None
        parts = [node]
        match node:
            case py.Subscript(value=py.Name(id="tuple" | "Tuple"), slice=inside):
                parts = inside.elts if isinstance(inside, py.Tuple) else [inside]
        found: list[tuple[ast.Expr, ...]] = []
        for part in parts:
            dims, kind = self.annotation(part)
            if dims is None or kind is not None:
                self.refuse(part, "an output is declared by its axes", 'expected `Tensor["…"]`')
            found.append(dims)
        return found

    # --- statements ------------------------------------------------------------------------------

    def statements(self, batch: str | None) -> Iterator[ast.Stmt]:
        if batch is not None:
            names = [n.strip() for n in batch.split(",") if n.strip()]
            span = self.name_after(self.function, "def").span
            yield ast.Batch(tuple(ast.Ident(n, span=span) for n in names), span=span)
        last = len(self.function.body) - 1
        for k, node in enumerate(self.function.body):
            match node:
                case py.Expr(value=py.Constant(value=str())) if k == 0:
                    continue
                case py.Return() if k == last:
                    continue
                case py.FunctionDef():
                    self.functions.append(self.helper(node))
                case _:
                    yield self.statement(node)

    def statement(self, node: py.stmt) -> ast.Stmt:
        span = self.span(node)
        match node:
            case py.Assign(targets=[target]):
                name, subs = self.target(target)
                return ast.Assign(name, subs, self.expr(node.value), span=span)
            case py.AnnAssign(value=py.expr() as value, annotation=py.Call() as call):
                name, subs = self.target(node.target)
                word = call.func.id if isinstance(call.func, py.Name) else ""
                expr, args = self.expr(value), tuple(map(self.expr, call.args))
                if word == "where" and args and not call.keywords:
                    return ast.Assign(name, subs, expr, args, span=span)
                if word == "init" and len(args) == 1 and not call.keywords:
                    return ast.Assign(name, subs, expr, (), args[0], span=span)
                self.refuse(
                    call, "neither a domain nor a start", "expected `where(…)` or `init(…)`"
                )
            case py.Expr(value=py.Call(func=py.Name(id="batch")) as call) if not call.keywords:
                return ast.Batch(
                    tuple(self.ident(a, "a batch index") for a in call.args), span=span
                )
            case py.Expr(value=py.Call(func=py.Name(id="assume")) as call) if not call.keywords:
                return ast.Assume(tuple(map(self.expr, call.args)), span=span)
            case py.Expr(value=py.Call(func=py.Name(id="rank")) as call) if not call.args:
                return ast.RankDecl(tuple(map(self.binding, call.keywords)), span=span)
            case _:
                self.refuse(node, "a statement outside the language", "expected an assignment")

    def target(self, node: py.expr) -> tuple[ast.Ident, tuple[ast.Sub, ...]]:
        if isinstance(node, py.Subscript):
            name = self.ident(node.value, "what is assigned")
            subs = parse_subscripts(self.source, self.end(node.value), self.end(node))
            return name, tuple(
                replace(s, filter=_extents(s.filter) if s.filter is not None else None)
                for s in subs
            )
        return self.ident(node, "what is assigned"), ()

    def binding(self, k: py.keyword) -> ast.Binding:
        start = self.offset(k.lineno, k.col_offset)
        if k.arg is None:
            self.refuse(k.value, "a rank without a name", "expected `rank(r=…)`")
        name = ast.Ident(k.arg, span=Span(self.source, start, start + len(k.arg)))
        return ast.Binding(
            name, self.expr(k.value), span=Span(self.source, start, self.end(k.value))
        )

    def helper(self, node: py.FunctionDef) -> ast.Function:
        """A nested `def f(x): return …` is a def of the language."""
        args = node.args
        for given in (*args.defaults, *args.kw_defaults):
            if given is not None:
                self.refuse(given, "an argument of a helper has no default", "give it at each use")
        for arg in (*args.kwonlyargs, args.vararg, args.kwarg):
            if arg is not None:
                self.refuse(arg, "an argument of a helper has a place", f"`{arg.arg}` has none")
        match node.body:
            case [py.Return(value=py.expr() as value)]:
                params = tuple(
                    ast.Ident(a.arg, span=self.span(a))
                    for a in (*node.args.posonlyargs, *node.args.args)
                )
                return ast.Function(
                    self.name_after(node, "def"), params, self.expr(value), span=self.span(node)
                )
            case _:
                self.refuse(node, "a helper is more than one `return`", "expected `return …` alone")


def _extents(e: ast.Expr) -> ast.Expr:
    """`len(e)` is Python's spelling of `|e|`."""
    match e:
        case ast.Call(fn="len", args=(ast.Name() as index,), keywords=()):
            return ast.ExtentOf(index.name, span=e.span)
        case _:
            return ast.map_children(e, _extents)
