"""Syntax tree to text: `parse(print_ast(tree)) == tree`."""

from __future__ import annotations

from attndsl.frontend import ast


def print_ast(node: ast.File | ast.Function | ast.Attention | ast.Stmt | ast.Decl) -> str:
    """The program text of a tree, one statement a line."""
    match node:
        case ast.File():
            return "\n\n".join(print_ast(item) for item in node.items) + "\n"
        case ast.Function():
            params = ", ".join(p.name for p in node.params)
            return f"def {node.name.name}({params}) = {print_expr(node.body)}"
        case ast.Attention():
            body = "".join(f"  {print_ast(s)}\n" for s in node.body)
            return f"{print_header(node)} {{\n{body}}}"
        case ast.Decl():
            dims = f"[{','.join(map(compact, node.dims))}]" if node.dims is not None else ""
            kind = f": {node.type.name}" if node.type is not None else ""
            default = f" = {print_expr(node.default)}" if node.default is not None else ""
            return f"{node.name.name}{dims}{kind}{default}"
        case ast.Assign():
            where = f" where {', '.join(map(print_expr, node.where))}" if node.where else ""
            init = f" init {print_expr(node.init)}" if node.init is not None else ""
            return f"{print_target(node)} = {print_expr(node.expr)}{where}{init}"
        case ast.Batch():
            return f"batch {', '.join(n.name for n in node.names)}"
        case ast.RankDecl():
            return "rank " + ", ".join(
                f"{b.name.name} = {print_expr(b.value)}" for b in node.bindings
            )
        case ast.Assume():
            return f"assume {', '.join(map(print_expr, node.conditions))}"


def print_header(node: ast.Attention) -> str:
    """`attention NAME(inputs) -> outputs`, on one line."""
    inputs = ", ".join(map(print_ast, node.inputs))
    outputs = ", ".join(map(print_ast, node.outputs))
    return f"attention {node.name.name}({inputs}) -> {outputs}"


def print_target(node: ast.Assign) -> str:
    """The left side of an assignment."""
    return node.target.name + (_subs(node.subs) if node.subs else "")


def print_expr(e: ast.Expr) -> str:
    """An expression; parentheses are printed where the tree has them, and where precedence needs them."""
    match e:
        case ast.Num():
            return e.text
        case ast.Bool():
            return str(e.value)
        case ast.Name():
            return e.name
        case ast.ExtentOf():
            return f"|{e.name}|"
        case ast.Ref():
            return e.name + _subs(e.subs)
        case ast.Big():
            return f"{e.op}{_subs(e.subs, filtered=True)}({_args(e.args, e.keywords)})"
        case ast.Call():
            return f"{e.fn}({_args(e.args, e.keywords)})"
        case ast.Unary():
            return ("not " if e.op == "not" else e.op) + _tight(e.arg, _level(e))
        case ast.Binary(op="**"):
            return f"{_tight(e.left, _ATOM)}**{_tight(e.right, _SIGN)}"
        case ast.Binary(op="+" | "-") | ast.BoolOp():
            (_, head), *tail = _chain(e, e.op if isinstance(e, ast.BoolOp) else "+")
            level = _level(e)
            parts = (f" {op} {_tight(x, level + 1)}" for op, x in tail)
            return _tight(head, level + 1) + "".join(parts)
        case ast.Binary():
            level = _level(e)
            return f"{_tight(e.left, level)} {e.op} {_tight(e.right, level + 1)}"
        case ast.Compare():
            first, *rest = (_tight(x, _level(e) + 1) for x in e.operands)
            return first + "".join(f" {op} {x}" for op, x in zip(e.ops, rest, strict=True))
        case ast.IfExp():
            then, cond = _tight(e.then, _OR), _tight(e.cond, _OR)
            return f"{then} if {cond} else {print_expr(e.other)}"
        case ast.Paren():
            return f"({print_expr(e.inner)})"


def _chain(e: ast.Expr, op: str) -> list[tuple[str, ast.Expr]]:
    """The operands of a chain, each with what stands before it; the second half of a long one has no parentheses."""
    match e:
        case ast.BoolOp() if op == e.op:
            return [*_chain(e.left, op), *_chain(e.right, op)]
        case ast.Binary(op="+" | "-") if op in ("+", "-"):
            turned = {"+": "-", "-": "+"}[e.op] if op == "-" else e.op
            return [*_chain(e.left, op), *_chain(e.right, turned)]
        case _:
            return [(op, e)]


_IF, _OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(10)
_LEVELS = {"or": _OR, "and": _AND, "not": _NOT, "+": _SUM, "-": _SUM, "**": _POWER}


def _level(e: ast.Expr) -> int:
    """How tightly the outermost operator binds; larger is tighter."""
    match e:
        case ast.IfExp():
            return _IF
        case ast.Compare():
            return _COMPARE
        case ast.Unary():
            return _NOT if e.op == "not" else _SIGN
        case ast.Binary() | ast.BoolOp():
            return _LEVELS.get(e.op, _PRODUCT)
        case _:
            return _ATOM


def _tight(e: ast.Expr, level: int) -> str:
    """`e` where an operator of this level is expected; parenthesised if it binds less tightly."""
    return print_expr(e) if _level(e) >= level else f"({print_expr(e)})"


def compact(e: ast.Expr) -> str:
    """A subscript: as `print_expr`, but the operators of one plain level stand close (`t-1`, `h//G`)."""
    match e:
        case ast.Binary(left=ast.Name() | ast.Num() | ast.ExtentOf() as a) if isinstance(
            e.right, ast.Name | ast.Num
        ):
            return f"{print_expr(a)}{e.op}{print_expr(e.right)}"
        case _:
            return print_expr(e)


def _subs(subs: tuple[ast.Sub, ...], *, filtered: bool = False) -> str:
    """Between brackets: close (`S[i,j]`), unless something in it is long."""
    parts = [
        compact(s.expr) + (f" : {print_expr(s.filter)}" if s.filter is not None else "")
        for s in subs
    ]
    return f"[{(', ' if any(' ' in p for p in parts) else ',').join(parts)}]"


def _args(args: tuple[ast.Expr, ...], keywords: tuple[ast.Keyword, ...]) -> str:
    return ", ".join(
        [*map(print_expr, args), *(f"{k.name}={print_expr(k.value)}" for k in keywords)]
    )
