"""The standard layout: comments kept, assignments of a block aligned, long headers broken.

    format_source("attention f(X[i])->O[i]{O[i]=X[i]*2 # twice\\n}")

Statements keep their order, comments their places: one at the end of a line stays there, one on a line of its own stays
before the same statement. Formatting twice changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from attndsl.diagnostics import DiagnosticError
from attndsl.frontend import ast
from attndsl.frontend.parser import parse
from attndsl.frontend.printer import print_ast, print_expr, print_header, print_target
from attndsl.source import Source

WIDTH = 100
INDENT = "  "
_COMMENT = re.compile(r"#[^\n]*")
_BLANK = re.compile(r"\n[ \t]*\n")


def format_source(source: Source | str) -> str:
    """The program in the standard layout.

    Raises: DiagnosticError (A01xx) if it does not parse.
    """
    if isinstance(source, str):
        source = Source("<text>", source)
    try:
        tree = parse(source)
    except DiagnosticError as error:
        if error.codes == ["A0102"]:  # nothing but comments: they are kept as they are
            lines = [line.strip() for line in source.text.splitlines()]
            return "\n".join(lines).strip() + "\n" if any(lines) else ""
        raise
    return _Formatter(source, tree).text()


@dataclass(slots=True)
class _Line:
    """A line to be: the code in the columns that are aligned, and comments before it and after it."""

    columns: tuple[str, ...]
    start: int
    end: int
    above: list[str] = field(default_factory=list)
    beside: str = ""
    gap: bool = False


class _Formatter:
    def __init__(self, source: Source, tree: ast.File) -> None:
        self.text_of = source.text
        self.tree = tree
        self.comments = [(m.start(), m[0].rstrip()) for m in _COMMENT.finditer(source.text)]

    def text(self) -> str:
        blocks: list[str] = []
        for item in self.tree.items:
            lead = self.leading(_start(item))
            body = self.function(item) if isinstance(item, ast.Function) else self.attention(item)
            joined = "\n".join([*lead, *body])
            # Defs that stood together stay together.
            tight = blocks and isinstance(item, ast.Function) and not self.blank_before(item, lead)
            blocks.append(joined if not blocks else ("\n" if tight else "\n\n") + joined)
        rest = self.leading(len(self.text_of))
        tail = ("\n\n" if blocks else "") + "\n".join(rest) if rest else ""
        return "".join(blocks) + tail + "\n"

    def blank_before(self, item: ast.Function | ast.Attention, lead: list[str]) -> bool:
        start = _start(item)
        before = self.text_of[:start]
        for _ in lead:
            before = before.rstrip()
            before = before[: before.rfind("#")]
        return bool(_BLANK.search(before[len(before.rstrip(" \t\n;")) :]))

    def function(self, item: ast.Function) -> list[str]:
        line = _Line((print_ast(item),), _start(item), _end(item))
        inner = self.inside(line.start, line.end)
        beside = self.trailing(line.end)
        code = line.columns[0] + (f"  {beside}" if beside else "")
        return [*inner, code]

    def attention(self, item: ast.Attention) -> list[str]:
        opening = self.opening(item)
        out = self.inside(_start(item), opening)
        beside = self.trailing(opening)
        header = self.header(item)
        header[-1] += " {" + (f"  {beside}" if beside else "")
        if not item.body and not self.comments_before(_end(item)):
            header[-1] += "}" if not beside else ""
            if not beside:
                return [*out, *header]
        out += header
        lines = [
            self.statement(s, previous)
            for previous, s in zip((None, *item.body), item.body, strict=False)
        ]
        out += _laid_out(lines)
        out += [INDENT + c for c in self.leading(_end(item))]
        beside = self.trailing(_end(item))
        return [*out, "}" + (f"  {beside}" if beside else "")]

    def opening(self, item: ast.Attention) -> int:
        """The offset just after the header's `{`: the first brace outside a comment."""
        at = item.name.span.end if item.name.span is not None else 0
        while self.text_of[at] != "{":
            at = self.text_of.index("\n", at) if self.text_of[at] == "#" else at + 1
        return at + 1

    def header(self, item: ast.Attention) -> list[str]:
        line = print_header(item)
        if len(line) + 2 <= WIDTH:
            return [line]
        inputs = _filled([print_ast(d) for d in item.inputs])
        outputs = ", ".join(map(print_ast, item.outputs))
        return [f"attention {item.name.name}(", *inputs, f") -> {outputs}"]

    def statement(self, s: ast.Stmt, previous: ast.Stmt | None) -> _Line:
        start, end = _start(s), _end(s)
        after = _end(previous) if previous is not None else start
        gap = previous is not None and bool(_BLANK.search(self.text_of[after:start]))
        above = [*self.leading(start), *self.inside(start, end)]
        return _Line(_columns(s), start, end, above, self.trailing(end), gap)

    # --- comments ----------------------------------------------------------------------------------------------------

    def comments_before(self, end: int) -> bool:
        return bool(self.comments) and self.comments[0][0] < end

    def leading(self, start: int) -> list[str]:
        """The comments not yet placed that stand before this offset."""
        return self.inside(0, start)

    def inside(self, start: int, end: int) -> list[str]:
        found: list[str] = []
        while self.comments and self.comments[0][0] < end:
            found.append(self.comments.pop(0)[1])
        return found

    def trailing(self, end: int) -> str:
        """The comment on the same line after this offset, if nothing else stands between."""
        if not self.comments:
            return ""
        at, text = self.comments[0]
        if self.text_of[end:at].strip(" \t;,") == "" and at >= end:
            self.comments.pop(0)
            return text
        return ""


def _filled(parts: list[str]) -> list[str]:
    """A comma-separated list over as few lines as it takes."""
    lines = [""]
    for k, part in enumerate(parts, 1):
        piece = f"{part}," if k < len(parts) else part
        if lines[-1] and len(INDENT) + len(lines[-1]) + 1 + len(piece) > WIDTH:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + piece
    return [INDENT + line for line in lines if line]


def _columns(s: ast.Stmt) -> tuple[str, ...]:
    """Assignments align at `=` and before `where` or `init`; other statements are one column."""
    if not isinstance(s, ast.Assign):
        return (print_ast(s),)
    tail = f"where {', '.join(map(print_expr, s.where))}" if s.where else ""
    if s.init is not None:
        tail += ("   " if tail else "") + f"init {print_expr(s.init)}"
    return (print_target(s), print_expr(s.expr), tail)


def _laid_out(lines: list[_Line]) -> list[str]:
    """Lines of a block, aligned in runs without a blank line or an own-line comment between."""
    out: list[str] = []
    for run in _runs(lines):
        left = max((len(x.columns[0]) for x in run if len(x.columns) == 3), default=0)
        tails = [x for x in run if len(x.columns) == 3 and x.columns[2]]
        right = max((len(x.columns[1]) for x in tails), default=0)
        for x in run:
            if x.gap:
                out.append("")
            out += [INDENT + c for c in x.above]
            code = x.columns[0]
            if len(x.columns) == 3:
                code = f"{x.columns[0]:<{left}} = {x.columns[1]}"
                if x.columns[2]:
                    code = f"{x.columns[0]:<{left}} = {x.columns[1]:<{right}}   {x.columns[2]}"
                    if len(code) + len(INDENT) > WIDTH:
                        code = f"{x.columns[0]:<{left}} = {x.columns[1]}   {x.columns[2]}"
            out.append(INDENT + code + (f"  {x.beside}" if x.beside else ""))
    return out


def _runs(lines: list[_Line]) -> list[list[_Line]]:
    runs: list[list[_Line]] = []
    for x in lines:
        if not runs or x.gap or x.above:
            runs.append([])
        runs[-1].append(x)
    return runs


def _start(node: ast.Node) -> int:
    return node.span.start if node.span is not None else 0


def _end(node: ast.Node) -> int:
    return node.span.end if node.span is not None else 0
