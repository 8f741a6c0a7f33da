"""The last kinds of call, of which nothing is asked again: they are found, and nothing else is taken for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import attndsl
from attndsl.runtime import replay as replaying
from attndsl.runtime.engine import Start
from attndsl.runtime.operator import CompiledAttention
from attndsl.runtime.recent import MOST_KINDS, Recent, check_of
from attndsl.runtime.replay import Replay, Step, kind_of

SLOPED = """
attention sloped(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], slope[h]) -> O[b,h,i,f], LSE[b,h,i] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) - slope * (i - j)   where j <= i
  LSE[i] = logsumexp[j](S[i,j])
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""
WRT = "Q,K,V,slope"


def inputs(n: int = 8) -> list[Tensor]:
    return [*(torch.randn(1, 2, n, 16) for _ in range(3)), torch.rand(2)]


@pytest.fixture(autouse=True)
def _no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = SimpleNamespace(launch_enter_hook=None, launch_exit_hook=None)
    monkeypatch.setattr(replaying, "_triton", lambda: (knobs, lambda device: 0))


class Launches:
    """Stands in for compiled kernels: another operator of the same program; once `shut`, nothing may be launched."""

    def __init__(self) -> None:
        self.other = attndsl.compile(SLOPED)
        self.runs = 0
        self.shut = False

    def replay(
        self, brought: Sequence[Tensor], run: Callable[..., list[Tensor]], results: int
    ) -> Replay:
        n = len(brought)

        def result(k: int) -> Callable[..., Tensor]:
            def made(*tensors: Tensor) -> Tensor:
                assert not self.shut, "taken for a call of another kind"
                self.runs += 1
                with torch.no_grad():
                    return run(*tensors)[k]

            return made

        places = tuple((k, k) for k in range(n))
        steps = tuple(Step(result(k), None, [None] * n, places, at=n + k) for k in range(results))
        made = tuple(range(n, n + results))
        return Replay(steps, steps, (), made, -1, (None,) * results, (0,) * results)

    def into(self, op: CompiledAttention, given: Sequence[Tensor]) -> None:
        """As if calls of this kind had been launched, with gradients and without."""
        engine, other = op._engine, self.other._engine
        kind = kind_of(given)
        plain = self.replay(given, lambda *x: other.run(x, Start(), (), ""), 2)
        engine.replays["", "", (), kind] = plain
        graded = self.replay(given, lambda *x: other.run(x, Start(), (), WRT), 2)
        engine.replays[WRT, "", (), kind] = graded

    def into_backward(self, op: CompiledAttention, brought: Sequence[Tensor]) -> None:
        """And its backward pass, with a gradient of `O` alone."""
        n, other = len(inputs()), self.other._engine

        def run(*x: Tensor) -> list[Tensor]:
            return other.run_backward(x[:n], Start(), (), WRT, x[n:-1], [x[-1], None])

        key = ((True, False), WRT, "", (), False, kind_of(brought))
        op._engine.replays[key] = self.replay(brought, run, n)


@pytest.fixture
def made() -> tuple[CompiledAttention, Launches, list[Tensor]]:
    """An operator that knows a kind of call."""
    op, launches, given = attndsl.compile(SLOPED), Launches(), inputs()
    launches.into(op, given)
    for _ in range(2):
        op(*given)
    assert len(op._operators.recent[True].kinds) == 1
    return op, launches, given


def unasked(op: CompiledAttention, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("looked up")

    for name in ("launched", "brought", "run", "run_backward"):
        monkeypatch.setattr(op._engine, name, refused)


def test_a_kind_that_comes_again_is_not_looked_up(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    op, launches, _ = made
    unasked(op, monkeypatch)
    before = launches.runs
    other = inputs()
    for got, want in zip(op(*other), op.reference(*other), strict=True):
        torch.testing.assert_close(got, want)
    assert launches.runs == before + 2


def test_gradients_of_a_kind_that_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    op, launches, given = attndsl.compile(SLOPED), Launches(), inputs()
    launches.into(op, given)
    up = torch.randn_like(given[2])
    found = launches.other._engine.run(given, Start(), (), WRT)
    kept = [found[k] for k in op._engine.stage_for(given, Start(), WRT).kept]
    launches.into_backward(op, [*given, *kept, up])

    def gradients(given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        leaves = [x.clone().requires_grad_() for x in given]
        return torch.autograd.grad(op(*leaves)[0], leaves, up)

    for _ in range(2):
        gradients(given)
    unasked(op, monkeypatch)
    other = inputs()
    runs = launches.runs
    got = gradients(other)
    assert launches.runs == runs + 2 + len(given)
    leaves = [x.double().requires_grad_() for x in other]
    want = torch.autograd.grad(op.reference(*leaves)[0], leaves, up.double())
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)


class Mine(Tensor):
    pass


def shifted(x: Tensor) -> Tensor:
    """The same values two bytes or four further on, where tiles cannot be loaded by their address."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


OTHERS: dict[str, Callable[[list[Tensor]], Sequence[Tensor]]] = {
    "a shape": lambda x: inputs(9),
    "strides": lambda x: [x[0].transpose(1, 2).contiguous().transpose(1, 2), *x[1:]],
    "a type": lambda x: [t.double() for t in x],
    "an address": lambda x: [shifted(x[0]), *x[1:]],
    "one tensor twice": lambda x: [x[0], x[0], *x[2:]],
    "a gradient": lambda x: [x[0].clone().requires_grad_(), *x[1:]],
    "a parameter": lambda x: [*x[:3], torch.nn.Parameter(x[3])],
    "a subclass": lambda x: [x[0].as_subclass(Mine), *x[1:]],
}


@pytest.mark.parametrize("what", OTHERS)
def test_nothing_else_is_taken_for_it(made: Any, what: str) -> None:
    op, launches, given = made
    op._engine.replays.clear()
    launches.shut = True
    with pytest.raises(AssertionError, match="another kind"):
        op(*given)
    other = OTHERS[what](given)
    for got, want in zip(op(*other), op.reference(*other), strict=True):
        torch.testing.assert_close(got, want)


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return func(*args, **(kwargs or {}))


@contextmanager
def profiled() -> Iterator[None]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        yield


@pytest.mark.parametrize(
    "around",
    [
        Mode,
        profiled,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.device("cpu"),  # a mode of functions
        torch.autograd.forward_ad.dual_level,
    ],
)
def test_who_looks_on_sees_an_operator(made: Any, around: Callable[[], Any]) -> None:
    op, launches, given = made
    op._engine.replays.clear()
    launches.shut = True
    with around():
        op(*given)


def test_kinds_that_launch_alike_are_learned_apart(made: Any) -> None:
    op, launches, given = made
    parameters = [*given[:3], torch.nn.Parameter(given[3])]
    with torch.inference_mode():
        inferred = [x.clone() for x in given]

    kinds = (
        (torch.no_grad, given),
        (torch.no_grad, parameters),
        (torch.inference_mode, given),
        (torch.inference_mode, inferred),
    )
    for mode, x in kinds:
        for _ in range(2):
            with mode():
                op(*x)
    op._engine.replays.clear()
    launches.shut = True
    for mode, x in kinds:
        with pytest.raises(AssertionError, match="another kind"), mode():
            op(*x)


def test_transforms_see_an_operator(made: Any) -> None:
    op, launches, given = made
    op._engine.replays.clear()
    launches.shut = True
    with pytest.raises(RuntimeError, match="no gradient under"):
        torch.func.grad(lambda q: op(q, *given[1:])[0].sum())(given[0])


def test_what_cannot_be_compared_is_looked_up() -> None:
    x = torch.zeros(4, 4)
    assert check_of((x, x)) is None
    assert check_of((shifted(x),)) is None
    recent: Recent[str] = Recent()
    for _ in range(3):
        recent.offer((x, x), "twice", "")
    assert recent.kinds == []


def test_the_last_kinds_are_kept() -> None:
    recent: Recent[int] = Recent()
    kinds = [(torch.zeros(n + 1, 4),) for n in range(MOST_KINDS + 1)]
    for n, x in enumerate(kinds):
        recent.offer(x, n, n)
        assert recent.find(x) is None, "learned though it came once"
        recent.offer(x, n, n)
        recent.offer(x, n, n)
    found = [recent.find(x) for x in kinds]
    assert found[0] is None
    for n, (x,) in list(enumerate(kinds))[1:]:
        assert found[n] == (n, [x.data_ptr()])
    assert len(recent.kinds) == MOST_KINDS
