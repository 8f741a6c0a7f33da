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

sys.path.insert(0, str(Path(__file__).parent))
from eager_plans import causal_forward

from attndsl.codegen.eager import render_module


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


@pytest.mark.parametrize("plan", [causal_forward(), causal_forward(True, True)])
def test_text_is_formatted(plan, tmp_path: Path) -> None:
    text = render_module("causal", plan, header="made by a test")
    ast.parse(text)
    assert text == formatted(text, tmp_path)
