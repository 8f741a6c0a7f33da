"""Every statement and function of the tile IR, each by a small kernel in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    DType,
    Expr,
    Extent,
    Logic,
    Param,
    Position,
    Reduction,
    Select,
    Unary,
)
from attndsl.codegen.triton import render_module
from attndsl.schedule import tile as t
from tests.unit.codegen.running import format_difference, run

FLOAT, INT, BOOL = DType.FLOAT, DType.INT, DType.BOOL
ROLES = {"i": t.Role.TILE, "j": t.Role.STREAM, "e": t.Role.FULL, "f": t.Role.FULL}


def val(name: str) -> Expr:
    return t.Val(name)  # type: ignore[return-value]


def pos(*names: str) -> tuple[Expr, ...]:
    return tuple(Position(n) for n in names)


def load(name: str, tensor: str, axes: str, dtype: DType = FLOAT) -> t.Load:
    dims = tuple(a for a in "ijef" if a in axes)
    return t.Load(name, dims, dtype, tensor, pos(*axes), tuple(a for a in dims if a in "ij"))


def put(tensor: str, axes: str, value: str) -> t.Store:
    return t.Store(tensor, pos(*axes), value, tuple(a for a in axes if a in "ij"))


def plan(
    body: tuple[t.Stmt, ...],
    inputs: dict[str, str],
    outputs: dict[str, str],
    *,
    axes: str = "ief",
    dtypes: dict[str, DType] | None = None,
    params: tuple[tuple[str, DType], ...] = (),
    extra: tuple[t.Axis, ...] = (),
    fixed: tuple[str, ...] = (),
    steps: tuple[t.Step, ...] = (),
    temps: tuple[t.Buffer, ...] = (),
) -> t.Plan:
    """A plan of one kernel with `body` as its prologue; tensors are given with their ranks (`{"x": "ie"}`)."""
    types = dtypes or {}
    program = t.TileProgram(
        name="kernel",
        axes=(*(t.Axis(a, a, ROLES[a]) for a in axes), *extra),
        reads=(*inputs, *(b.name for b in temps if b.kind is t.BufferKind.TEMP)),
        writes=tuple(outputs),
        params=tuple(p for p, _ in params),
        prologue=body,
        loops=(),
        sweep=None,
        epilogue=(),
    )
    buffers = [
        t.Buffer(n, tuple(r), t.BufferKind.INPUT, types.get(n, FLOAT)) for n, r in inputs.items()
    ]
    for n, r in outputs.items():
        kind = t.BufferKind.FIXED if n in fixed else t.BufferKind.OUTPUT
        buffers.append(t.Buffer(n, tuple(r), kind, types.get(n, FLOAT)))
    return t.Plan("small", (*buffers, *temps), (program, *steps), params)


def check(folder: Path, p: t.Plan, script: str) -> None:
    text = render_module("small", p, None, "header")
    assert format_difference(text, folder) == ""
    run(folder, text, "torch.manual_seed(0)\n" + script)


# --- functions -------------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "exp": ("torch.exp(x)", 2e-6),
    "exp2": ("torch.exp2(x)", 2e-6),
    "log": ("torch.log(x.abs() + 1e-3)", 2e-6),
    "tanh": ("torch.tanh(x)", 1e-6),
    "sigmoid": ("torch.sigmoid(x)", 1e-6),
    "logsigmoid": ("torch.nn.functional.logsigmoid(x)", 1e-6),
    "softplus": ("torch.nn.functional.softplus(x)", 1e-6),
    "relu": ("torch.relu(x)", 0.0),
    "elu": ("torch.nn.functional.elu(x)", 1e-6),
    "silu": ("torch.nn.functional.silu(x)", 1e-6),
    "gelu": ("torch.nn.functional.gelu(x)", 2e-6),
    "erf": ("torch.erf(x)", 2e-6),
    "sin": ("torch.sin(x)", 1e-6),
    "cos": ("torch.cos(x)", 1e-6),
    "sign": ("torch.sign(x)", 0.0),
    "floor": ("torch.floor(x)", 0.0),
    "ceil": ("torch.ceil(x)", 0.0),
    "abs": ("torch.abs(x)", 0.0),
    "rsqrt": ("torch.rsqrt(x.abs() + 1e-3)", 2e-6),
    "sqrt": ("torch.sqrt(x.abs() + 1e-3)", 1e-6),
    "acos": ("torch.acos((x.float() / 30).double())", 2e-6),
}


def test_functions_are_accurate_everywhere(tmp_path: Path) -> None:
    """Small arguments too: an absolute error of 1e-7 is a relative one of 1e-2 at 1e-5."""
    body: list[t.Stmt] = [load("x", "x", "i")]
    for fn in FUNCTIONS:
        arg = val("x")
        if fn in ("log", "rsqrt", "sqrt"):
            arg = Binary("+", Call("abs", (val("x"),)), Const(1e-3))
        if fn == "acos":
            arg = Binary("/", val("x"), Const(30.0))
        body += [t.Compute(f"y_{fn}", ("i",), FLOAT, Call(fn, (arg,))), put(fn, "i", f"y_{fn}")]
    script = f"""
sizes = torch.logspace(-6, 1.1, 60)
x = torch.cat([sizes, -sizes, torch.zeros(1), torch.tensor([30.0, -30.0])])
out = module.forward({{"x": x}}, {{"i": len(x), "e": 1, "f": 1}}, {{}})
x = x.double()
for name, (text, tolerance) in {FUNCTIONS!r}.items():
    want = eval(text)
    # Half of gelu is cancellation: it is judged against its argument.
    size = x if name == "gelu" else want
    error = ((out[name].double() - want).abs() / size.abs().clamp_min(1e-30)).max().item()
    assert error <= tolerance * 4 + 1e-7, (name, error)
"""
    check(tmp_path, plan(tuple(body), {"x": "i"}, dict.fromkeys(FUNCTIONS, "i")), script)


def test_power_of_every_kind(tmp_path: Path) -> None:
    cases: dict[str, Expr] = {
        "whole": Binary("**", val("x"), Const(3)),
        "none": Binary("**", val("x"), Const(0)),
        "half": Binary("**", Call("abs", (val("x"),)), Const(0.5)),
        "negative": Binary("**", val("x"), Const(-1)),
        "by_param": Binary("**", val("x"), Param("n")),
        "by_float": Binary("**", Call("abs", (val("x"),)), Param("p")),
        "of_integers": Binary("**", Position("i"), Const(2)),
    }
    body: list[t.Stmt] = [load("x", "x", "i")]
    for name, e in cases.items():
        body += [t.Compute(f"y_{name}", ("i",), FLOAT, e), put(name, "i", f"y_{name}")]
    script = """
x = torch.tensor([-2.5, -1.0, 0.5, 1.0, 3.0])
out = module.forward({"x": x}, {"i": 5, "e": 1, "f": 1}, {"n": 3, "p": 1.7})
want = {"whole": x**3, "none": x**0, "half": x.abs()**0.5, "negative": 1 / x, "by_param": x**3,
        "by_float": x.abs()**1.7, "of_integers": torch.arange(5.0)**2}
for name, y in want.items():
    torch.testing.assert_close(out[name], y, rtol=1e-5, atol=0)
"""
    params = (("n", INT), ("p", FLOAT))
    check(tmp_path, plan(tuple(body), {"x": "i"}, dict.fromkeys(cases, "i"), params=params), script)


def test_integers_floor_and_stay_exact(tmp_path: Path) -> None:
    shifted = Binary("-", Position("i"), Const(7))
    cases: dict[str, Expr] = {
        "quotient": Binary("//", shifted, Const(3)),
        "remainder": Binary("%", shifted, Const(3)),
        "by_negative": Binary("//", shifted, Unary("-", Param("n"))),
        "rest_negative": Binary("%", shifted, Unary("-", Param("n"))),
        "float_quotient": Binary("//", Binary("+", shifted, Const(0.5)), Const(2)),
        "float_rest": Binary("%", Binary("+", shifted, Const(0.5)), Const(2)),
        "ratio": Binary("/", shifted, Const(2)),
        "big": Binary("+", val("ids"), Const(1)),
        "least": Call("min", (shifted, Const(2), Binary("*", shifted, shifted))),
        "sign": Call("sign", (shifted,)),
        "size": Call("abs", (shifted,)),
    }
    kinds = dict.fromkeys(cases, INT) | {
        "float_quotient": FLOAT,
        "float_rest": FLOAT,
        "ratio": FLOAT,
    }
    body: list[t.Stmt] = [load("ids", "ids", "i", INT)]
    for name, e in cases.items():
        body += [t.Compute(f"y_{name}", ("i",), kinds[name], e), put(name, "i", f"y_{name}")]
    script = """
N = 20
ids = torch.arange(N) + 2**40
out = module.forward({"ids": ids, "x": torch.zeros(N)}, {"i": N, "e": 1, "f": 1}, {"n": 4})
a = torch.arange(N) - 7
want = {"quotient": a // 3, "remainder": a % 3, "by_negative": a // -4, "rest_negative": a % -4,
        "float_quotient": (a + 0.5) // 2, "float_rest": (a + 0.5) % 2, "ratio": a / 2, "big": ids + 1,
        "least": torch.minimum(torch.minimum(a, torch.tensor(2)), a * a), "sign": a.sign(), "size": a.abs()}
for name, y in want.items():
    torch.testing.assert_close(out[name], y, rtol=1e-6, atol=0)
"""
    types = {"ids": INT, **kinds}
    p = plan(
        tuple(body),
        {"ids": "i", "x": "i"},
        dict.fromkeys(cases, "i"),
        dtypes=types,
        params=(("n", INT),),
    )
    check(tmp_path, p, script)


def test_conditions(tmp_path: Path) -> None:
    inside = Logic(
        "and",
        (
            Compare("<", Position("i"), Binary("-", Extent("i"), Const(2))),
            Logic("or", (val("keep"), Unary("not", Param("flag")))),
        ),
    )
    body = (
        load("x", "x", "i"),
        load("keep", "keep", "i", BOOL),
        t.Compute("ok", ("i",), BOOL, inside),
        t.Compute("y", ("i",), FLOAT, Select(val("ok"), val("x"), Const(-1))),
        put("y", "i", "y"),
        put("ok", "i", "ok"),
    )
    script = """
N = 37
x, keep = torch.randn(N), torch.rand(N) < 0.5
for flag in (True, False):
    out = module.forward({"x": x, "keep": keep}, {"i": N, "e": 1, "f": 1}, {"flag": flag})
    ok = (torch.arange(N) < N - 2) & (keep | (not flag))
    torch.testing.assert_close(out["y"], torch.where(ok, x, -1.0))
    assert out["ok"].dtype is torch.bool and (out["ok"] == ok).all()
"""
    types = {"keep": BOOL, "ok": BOOL}
    p = plan(
        body,
        {"x": "i", "keep": "i"},
        {"y": "i", "ok": "i"},
        dtypes=types,
        params=(("flag", BOOL),),
    )
    check(tmp_path, p, script)


# --- reductions, products --------------------------------------------------------------------------------------------


def test_padding_never_enters_a_reduction_or_product(tmp_path: Path) -> None:
    """Head dims of 5 and 7 are padded to 16: there `exp(x)` is 1, and a product of all would be anything."""
    body: list[t.Stmt] = [
        load("x", "x", "ie"),
        load("w", "w", "ef"),
        t.Compute("y", ("i", "e"), FLOAT, Call("exp", (val("x"),))),
        t.Compute("u", ("e", "f"), FLOAT, Call("exp", (val("w"),))),
        t.Dot("p", ("i", "f"), "y", "u", "e", "x"),
        put("P", "if", "p"),
        t.Compute("big", ("i", "e"), BOOL, Compare(">", val("x"), Const(1.0))),
    ]
    for op in (Reduction.SUM, Reduction.MAX, Reduction.MIN, Reduction.PROD):
        body += [t.Fold(f"r_{op}", ("i",), op, "y", "e"), put(op.value, "i", f"r_{op}")]
    for op in (Reduction.ANY, Reduction.ALL):
        body += [t.Fold(f"r_{op}", ("i",), op, "big", "e"), put(op.value, "i", f"r_{op}")]
    script = """
x, w = torch.randn(40, 5), torch.randn(5, 7)
out = module.forward({"x": x, "w": w}, {"i": 40, "e": 5, "f": 7}, {})
y = x.exp()
want = {"P": y @ w.exp(), "sum": y.sum(1), "max": y.amax(1), "min": y.amin(1), "prod": y.prod(1),
        "any": (x > 1).any(1), "all": (x > 1).all(1)}
for name, r in want.items():
    torch.testing.assert_close(out[name], r, rtol=1e-5, atol=1e-5)
"""
    outputs = {"P": "if", **{op.value: "i" for op in Reduction}}
    types = {"any": BOOL, "all": BOOL}
    check(tmp_path, plan(tuple(body), {"x": "ie", "w": "ef"}, outputs, dtypes=types), script)


def test_accumulation_transposes_and_scales(tmp_path: Path) -> None:
    """`n = n * a + x^T y`, where neither operand lies as the product wants it."""
    body = (
        load("x", "x", "ie"),
        load("y", "y", "if"),
        t.Declare("n", ("e", "f"), FLOAT, Const(1.0)),
        t.Compute("a", ("e",), FLOAT, Binary("*", Position("e"), Const(0.5))),
        t.AccDot("n", "x", "y", "i", "x", "a"),
        t.AccDot("n", "x", "y", "i", "x"),
        put("n", "ef", "n"),
    )
    script = """
x, y = torch.randn(20, 16), torch.randn(20, 24)
out = module.forward({"x": x, "y": y}, {"i": 20, "e": 16, "f": 24}, {})
want = (torch.arange(16.0) * 0.5)[:, None] + 2 * x.T @ y
torch.testing.assert_close(out["n"], want, rtol=1e-5, atol=1e-5)
"""
    check(tmp_path, plan(body, {"x": "ie", "y": "if"}, {"n": "ef"}), script)


def test_loop_over_points_of_a_feature_rank(tmp_path: Path) -> None:
    """`d[i,f] = sum[a](w[a] * tanh(x[i,a] + y[f,a]))`: an inner sum that is no matrix product."""
    term = Binary("*", val("w"), Call("tanh", (Binary("+", val("x"), val("y")),)))
    inner: tuple[t.Stmt, ...] = (
        t.Load("x", ("i",), FLOAT, "x", pos("i", "a"), ("i",)),
        t.Load("y", ("f",), FLOAT, "y", pos("f", "a")),
        t.Load("w", (), FLOAT, "w", pos("a")),
        t.Assign("d", Binary("+", val("d"), term)),
    )
    body = (t.Declare("d", ("i", "f"), FLOAT, Const(0.0)), t.For("a", inner), put("d", "if", "d"))
    p = plan(
        body,
        {"x": "ia", "y": "fa", "w": "a"},
        {"d": "if"},
        extra=(t.Axis("a", "a", t.Role.POINT),),
    )
    script = """
x, y, w = torch.randn(35, 3), torch.randn(20, 3), torch.randn(3)
out = module.forward({"x": x, "y": y, "w": w}, {"i": 35, "e": 1, "f": 20, "a": 3}, {})
want = (w * torch.tanh(x[:, None] + y[None])).sum(-1)
torch.testing.assert_close(out["d"], want, rtol=1e-5, atol=1e-5)
"""
    check(tmp_path, p, script)


# --- memory ----------------------------------------------------------------------------------------------------------


def test_gather_and_guard(tmp_path: Path) -> None:
    """Reads by affine and by loaded subscripts, only where the guard holds."""
    shift = Binary("-", Position("i"), Const(3))
    body = (
        load("at", "at", "i", INT),
        t.Compute("ok", ("i",), BOOL, Compare(">=", shift, Const(0))),
        t.Load("a", ("i",), FLOAT, "x", (shift,), ("i",), "ok"),
        t.Load("b", ("i", "e"), FLOAT, "table", (val("at"), Position("e")), ("i",)),
        t.Compute("y", ("i", "e"), FLOAT, Binary("+", val("a"), val("b"))),
        put("y", "ie", "y"),
    )
    script = """
N = 40
x, at, table = torch.randn(N), torch.randint(0, 9, (N,)), torch.randn(9, 6)
out = module.forward({"x": x, "at": at, "table": table.T.contiguous().T}, {"i": N, "e": 6, "f": 1, "r": 9}, {})
want = torch.cat([torch.zeros(3), x[:-3]])[:, None] + table[at]
torch.testing.assert_close(out["y"], want)
"""
    p = plan(
        body,
        {"x": "i", "at": "i", "table": "re"},
        {"y": "ie"},
        dtypes={"at": INT},
    )
    check(tmp_path, p, script)


def test_scatter_sums_the_same_in_any_order(tmp_path: Path) -> None:
    """A histogram with weights: fixed-point atomics, the scale chosen from the data, converted back on the host."""
    body = (
        load("x", "x", "i"),
        load("at", "at", "i", INT),
        t.Load("s", (), FLOAT, "scale", ()),
        t.Scatter("sums", (val("at"),), "x", "s", ("i",)),
    )
    p = plan(
        body,
        {"x": "i", "at": "i", "most": ""},
        {"sums": "r"},
        dtypes={"at": INT},
        fixed=("sums",),
        temps=(
            t.Buffer("scale", (), t.BufferKind.TEMP),
            t.Buffer("out", ("r",), t.BufferKind.OUTPUT),
        ),
    )
    kernel, *_ = p.steps
    steps = (t.HostScale("scale", "most", ("i",)), kernel, t.HostSum("out", "sums", (), "scale"))
    p = t.Plan(p.name, p.buffers, steps, p.params)
    script = """
N = 70
x, at = torch.randn(N) * 1e3, torch.randint(0, 5, (N,))
extents = {"i": N, "e": 1, "f": 1, "r": 5}
out = module.forward({"x": x, "at": at, "most": x.abs().max()}, extents, {})["out"]
want = torch.zeros(5, dtype=torch.float64).index_add(0, at, x.double())
torch.testing.assert_close(out.double(), want, rtol=1e-6, atol=1e-6)
order = torch.randperm(N)
again = module.forward({"x": x[order], "at": at[order], "most": x.abs().max()}, extents, {})["out"]
assert (out == again).all()
"""
    check(tmp_path, p, script)


def test_host_sum_over_axes_and_groups(tmp_path: Path) -> None:
    body = (load("x", "x", "ie"), put("y", "ie", "x"))
    p = plan(body, {"x": "ie"}, {"y": "ie"}, temps=(t.Buffer("g", ("r",), t.BufferKind.OUTPUT),))
    p = t.Plan(p.name, p.buffers, (*p.steps, t.HostSum("g", "y", (0,))), p.params)
    script = """
x = torch.randn(40, 6)
out = module.forward({"x": x}, {"i": 40, "e": 6, "f": 1, "r": 2}, {})
torch.testing.assert_close(out["g"], x.sum(0).reshape(2, 3).sum(1))
"""
    check(tmp_path, p, script)


def test_quotient_of_empty_sums_is_zero(tmp_path: Path) -> None:
    body = (
        load("x", "x", "i"),
        load("z", "z", "i"),
        t.Compute("y", ("i",), FLOAT, Binary("/", val("x"), val("z")), safe=True),
        put("y", "i", "y"),
    )
    script = """
x, z = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 0.0, 2.0])
out = module.forward({"x": x, "z": z}, {"i": 3, "e": 1, "f": 1}, {})
assert out["y"].tolist() == [0.0, math.inf, 1.5]
"""
    check(tmp_path, plan(body, {"x": "i", "z": "i"}, {"y": "i"}), script)


@pytest.mark.parametrize("length", [1, 16, 100])
def test_long_expressions_are_cut(length: int) -> None:
    """However long an expression, no line passes 100 columns."""
    e: Expr = val("x")
    for k in range(length):
        e = Binary("+" if k % 3 else "*", Call("exp", (e,)), Binary("-", val("x"), Const(0.1 * k)))
    body = (load("x", "x", "i"), t.Compute("y", ("i",), FLOAT, e), put("y", "i", "y"))
    text = render_module("small", plan(body, {"x": "i"}, {"y": "i"}), None, "header")
    kernel = text.split("# --- kernels ---")[1].split("# --- tile sizes ---")[0]
    assert max(map(len, kernel.splitlines())) <= 100
