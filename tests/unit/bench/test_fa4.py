"""FlashAttention-4 as a peer: which masks it is given, and how. A library that stands in for it computes densely."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from attndsl.bench import peers
from attndsl.bench.run import Row, compare
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source

EXAMPLES = Path(__file__).parents[3] / "examples"
SMALL = {"b": 2, "h": 2, "i": 24, "j": 24, "e": 16, "f": 16}

Bound = int | None


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    softmax_scale: float,
    causal: bool = False,
    window_size: tuple[Bound, Bound] = (None, None),
) -> Any:
    """`[B,T,H,D]`; bounds count from the last query and key."""
    left, right = (window_size[0], 0) if causal else window_size
    gap = torch.arange(k.shape[1])[None, :] - torch.arange(q.shape[1])[:, None]
    gap = gap - (k.shape[1] - q.shape[1])
    seen = torch.ones_like(gap, dtype=torch.bool)
    seen &= gap >= -left if left is not None else seen
    seen &= gap <= right if right is not None else seen
    scores = torch.einsum("bihe,bjhe->bhij", q, k) * softmax_scale
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("bhij,bjhf->bihf", weights, v), None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of the calls."""
    out: list[dict[str, Any]] = []

    def run(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Any:
        out.append(options)
        return flash_attn_func(q, k, v, **options)

    module = SimpleNamespace(flash_attn_func=run)
    monkeypatch.setattr(peers, "find_spec", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(peers, "import_module", lambda name: {"flash_attn.cute": module}[name])
    return out


def row(name: str, **more: int) -> Row:
    def timer(call: Any) -> float:
        made = call()
        # A backward pass that reaches nothing would be timed as none.
        assert isinstance(made, Tensor) or all(x is not None for x in made)
        return 2.0

    cascade = load_cascades(read_source(EXAMPLES / f"{name}.attn"))[0]
    shape = SMALL | more
    return list(compare(cascade, [shape], ("fa4",), dtype="fp32", device="cpu", timer=timer))[1]


@pytest.mark.parametrize(
    ("name", "more", "options"),
    [
        ("full", {}, {"window_size": (None, None)}),
        ("causal", {}, {"causal": True}),
        ("causal", {"i": 5}, {"causal": True}),
        ("window", {"w": 8}, {"window_size": (7, 0)}),
        ("window_two_sided", {"w": 4}, {"window_size": (4, 4)}),
    ],
)
def test_bands(
    asked: list[dict[str, Any]], name: str, more: dict[str, int], options: dict[str, Any]
) -> None:
    made = row(name, **more)
    assert made.error is not None, made.note
    assert made.error < 1e-5
    assert made.backward_ms == 2.0
    scale = asked[0].pop("softmax_scale")
    assert scale == pytest.approx(0.25)
    assert asked[0] == options


@pytest.mark.parametrize(
    ("name", "more", "why"),
    [
        ("dilated", {}, "a mask that is no band along the diagonal"),
        ("softcap", {"cap": 50}, "a score that is more than a scaled product"),
    ],
)
def test_what_it_cannot_express(
    asked: list[dict[str, Any]], name: str, more: dict[str, int], why: str
) -> None:
    assert row(name, **more).note == f"cannot express: {why}"
