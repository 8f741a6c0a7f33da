"""Lines that fit: a statement that is too long for one is split over several."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

WIDTH = 100


def fitted(line: str, indent: int, fresh: Callable[[], str]) -> Iterator[str]:
    """The statement, after others that compute parts of it if it is wider than a line.

    Expressions are pure, so a part may be computed before; but not a part of a conditional
    expression, which might fail where it is not chosen.
    """
    while indent + len(line) > WIDTH and " = " in line:
        head, _, code = line.partition(" = ")
        part = _part(code, WIDTH - indent - 12)
        if part is None:
            break
        begin, end = part
        name = fresh()
        yield from fitted(f"{name} = {code[begin:end]}", indent, fresh)
        before, after = code[:begin], code[end:]
        grouped = before.endswith("(") and after.startswith(")")
        if grouped and (len(before) == 1 or before[-2] in " (["):
            before, after = before[:-1], after[1:]
        line = f"{head} = {before}{name}{after}"
    head, found, code = line.partition(" = ")
    if found and indent + len(line) > WIDTH >= indent + 4 + len(code):
        yield from (f"{head} = (", f"    {code}", ")")
    else:
        yield line


def _part(code: str, most: int) -> tuple[int, int] | None:
    """Where the longest expression inside that fits a line of its own stands."""
    try:
        root = ast.parse(code, mode="eval").body
    except SyntaxError:
        return None
    best: tuple[int, int] | None = None
    for node in _inside(root):
        assert node.end_col_offset is not None
        span = (node.col_offset, node.end_col_offset)
        length = span[1] - span[0]
        if 10 <= length <= most and (best is None or length > best[1] - best[0]):
            best = span
    return best


def _inside(root: ast.expr) -> Iterator[ast.expr]:
    """Expressions that are computed in any case and are worth a name."""
    todo: list[ast.AST] = [root]
    while todo:
        node = todo.pop()
        kinds = ast.BinOp | ast.Call | ast.Compare | ast.UnaryOp | ast.Subscript
        if isinstance(node, kinds) and node is not root:
            yield node
        match node:
            case ast.IfExp():
                todo.append(node.test)
            case ast.BoolOp():
                todo.append(node.values[0])
            case _:
                todo.extend(ast.iter_child_nodes(node))
