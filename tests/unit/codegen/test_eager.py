"""The eager dialect against PyTorch, from hand-written tile programs."""

from __future__ import annotations

import ast
import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import attndsl
from attndsl.codegen.eager import render_module
from attndsl.codegen.eager_lines import fitted
from tests.unit.codegen.eager_plans import bias_table, causal_forward, grouped_values

EXAMPLES = Path(__file__).parents[3] / "examples"


def load(text: str, tmp_path: Path) -> ModuleType:
    path = tmp_path / "generated.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("generated", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def formatted(text: str, tmp_path: Path) -> str:
    path = tmp_path / "formatted.py"
    path.write_text(text)
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "format", "-q", "--line-length", "100", path], check=True)
    subprocess.run([*ruff, "check", "-q", "--isolated", path], check=True)
    return path.read_text()


def dense(q, k, v, slope=None, scale=None):
    s = q.double() @ k.double().mT * (q.shape[-1] ** -0.5)
    i = torch.arange(q.shape[-2])[:, None]
    j = torch.arange(k.shape[-2])[None, :]
    if slope is not None:
        s = s - slope.double()[:, None, None] * (i - j)
    s = s.masked_fill(j > i, -math.inf)
    return s.softmax(-1) @ v.double(), s.logsumexp(-1)


@pytest.mark.parametrize("config", [None, {"i": 16, "j": 32}, {"i": 32, "j": 16}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_causal_forward(config: dict[str, int] | None, dtype: torch.dtype, tmp_path: Path) -> None:
    module = load(render_module("causal", causal_forward()), tmp_path)
    torch.manual_seed(0)
    b, h, n, d, f = 2, 3, 75, 16, 24
    q, k, v = (torch.randn(b, h, n, x).to(dtype) for x in (d, d, f))
    extents = {"b": b, "h": h, "i": n, "j": n, "e": d, "f": f}
    out = module.forward({"Q": q, "K": k, "V": v}, extents, {}, config)
    o, lse = dense(q, k, v)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    assert (out["O"].dtype, out["LSE"].dtype) == (dtype, wide)
    tol = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    assert (out["O"].double() - o).norm() / o.norm() < tol
    assert (out["LSE"].double() - lse).norm() / lse.norm() < min(tol, 1e-5)


def test_slope_and_groups(tmp_path: Path) -> None:
    module = load(render_module("alibi", causal_forward(slope=True, group=True)), tmp_path)
    b, h, g, n, d = 2, 4, 2, 40, 8
    q = torch.randn(b, n, h, d).transpose(1, 2)  # strided
    k, v = torch.randn(2, b, h // g, n, d)
    slope = torch.rand(h)
    extents = {"b": b, "h": h, "hk": h // g, "i": n, "j": n, "e": d, "f": d}
    inputs = {"Q": q, "K": k, "V": v, "slope": slope}
    out = module.forward(inputs, extents, {"G": g}, {"i": 16, "j": 16})
    o, lse = dense(q, k.repeat_interleave(g, 1), v.repeat_interleave(g, 1), slope)
    torch.testing.assert_close(out["O"].double(), o, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out["LSE"].double(), lse, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [None, {"i": 4, "j": 8}])
def test_gather_scatter_and_bounds_of_each_head(
    config: dict[str, int] | None, tmp_path: Path
) -> None:
    text = render_module("bias", bias_table())
    module = load(text, tmp_path)
    assert "for h in range(n_h):" in text  # the sweep's bounds depend on the head
    n, windows = 21, [1, 4, 30]
    table = torch.randn(2 * n + 1, dtype=torch.float64)
    inputs = {"table": table, "window": torch.tensor(windows, dtype=torch.int32)}
    extents = {"h": 3, "i": n, "j": n, "n": 2 * n + 1}
    out = module.forward(inputs, extents, {}, config)
    i, j = torch.arange(n)[:, None], torch.arange(n)
    at = i - j + n - 1
    want = torch.stack([(table[at] * ((i - j).abs() < w)).sum(1) for w in windows])
    torch.testing.assert_close(out["out"], want)
    counts = torch.zeros_like(table)
    for w in windows:
        counts.index_add_(0, at.flatten(), 0.5 * ((i - j).abs() < w).double().flatten())
    assert torch.equal(out["counted"], counts)


@pytest.mark.parametrize("config", [None, {"i": 4, "j": 8}])
def test_loops_over_heads_and_points(config: dict[str, int] | None, tmp_path: Path) -> None:
    module = load(render_module("grouped", grouped_values()), tmp_path)
    w, v = torch.randn(6, 11, 13), torch.randn(6, 11, 5)
    extents = {"g": 2, "h": 6, "i": 11, "j": 13, "f": 5}
    out = module.forward({"W": w, "V": v}, extents, {"G": 3}, config)
    want = torch.einsum("hij,hif->hjf", w, v).unflatten(0, (2, 3)).sum(1)
    torch.testing.assert_close(out["S"], want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out["T"], want.sum(-1), rtol=1e-4, atol=1e-4)


PLANS = {
    "causal": causal_forward(),
    "alibi": causal_forward(True, True),
    "bias": bias_table(),
    "grouped": grouped_values(),
}


@pytest.mark.parametrize("name", PLANS)
def test_text_is_formatted(name: str, tmp_path: Path) -> None:
    text = render_module(name, PLANS[name], header="made by a test")
    ast.parse(text)
    assert text == formatted(text, tmp_path)


@pytest.mark.parametrize("example", ["alibi", "fox", "retnet", "music_transformer", "softpick"])
def test_text_of_examples_is_formatted(example: str, tmp_path: Path) -> None:
    text = attndsl.load(EXAMPLES / f"{example}.attn").source("eager")
    assert text == formatted(text, tmp_path)


def test_the_same_plan_prints_the_same_text() -> None:
    assert render_module("a", causal_forward(True)) == render_module("a", causal_forward(True))


def test_long_lines_are_split_without_changing_their_value() -> None:
    terms = " + ".join(f"max({k}, a{k}) * (b - {k})" for k in range(20))
    names = (f"part_{k}" for k in range(100))
    lines = list(fitted(f"x = ({terms}) // 3 if b else 0", 8, lambda: next(names)))
    # the part that is chosen by a condition must not be computed before it
    assert lines == [f"x = ({terms}) // 3 if b else 0"]
    lines = list(fitted(f"x = ({terms}) * (b + 1)", 8, lambda: next(names)))
    assert max(map(len, lines)) <= 92
    values = {f"a{k}": 7 * k % 5 for k in range(20)} | {"b": 11}
    split = dict(values)
    exec("\n".join(lines), {}, split)
    assert split["x"] == eval(f"({terms}) * (b + 1)", {}, values)


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The number of elements of the largest tensor that an operation made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor) and x.untyped_storage().nbytes() > 0:
                self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return out


def test_memory_grows_with_the_length_and_not_its_square(tmp_path: Path) -> None:
    op = attndsl.load(EXAMPLES / "alibi.attn", backend="eager")
    stage = op._engine.stage("none", ("Q", "K", "V", "slope"), "eager")
    largest = {}
    for n in (1024, 4096):
        q, k, v = torch.randn(3, 1, 1, n, 8)
        extents = {"b": 1, "h": 1, "i": n, "j": n, "e": 8, "f": 8, "K.1": 1, "V.1": 1}
        inputs = {"Q": q, "K": k, "V": v, "slope": torch.rand(1)}
        with Largest() as mode:
            made = stage.module.forward(inputs, extents, {"G": 1})
            cotangents = {"dO": torch.ones_like(made["O"]), "dLSE": torch.ones_like(made["LSE"])}
            extents = stage.extents(extents, {"G": 1})
            stage.module.backward({**inputs, **made, **cotangents}, extents, {"G": 1})
        largest[n] = mode.numel
    assert largest[4096] <= largest[1024] == 256 * 512
