"""Launches that are kept: what is repeated, what is not, and that a repeated call is the same call."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.runtime import replay as replaying
from attndsl.runtime.launches import Launch, Recorder, rebound
from attndsl.runtime.replay import Replay, kind_of
from attndsl.runtime.watching import Watch, told_apart

MODULE = """
import torch

ARGUMENTS = [
    ("x_ptr", "pointer_like", "x"),
    ("out_ptr", "pointer_like", "x"),
    ("start", "param_int", "start"),
    ("N", "full", "n"),
]
KERNELS = {"scale": {"arguments": ARGUMENTS}}

def sum_into(shape, source, axes, dtype, scale):
    return source.sum(axes).to(dtype)

def forward(inputs, extents, params, config=None):
    x = inputs["x"]
    out = torch.empty((extents["n"],), dtype=x.dtype, device=x.device)
    grid = (extents["n"],)
    scale[grid](x, out, params["start"], N=extents["n"], num_warps=4)
    return {"out": out}

def summed(inputs, extents, params, config=None):
    x = inputs["x"]
    part = torch.zeros((extents["n"],), dtype=x.dtype, device=x.device)
    grid = (extents["n"],)
    scale[grid](x, part, params["start"], N=extents["n"], num_warps=4)
    shape = ()
    total = sum_into(shape, part, (0,), x.dtype, None)
    scale[grid](x, part, params["start"], N=extents["n"], num_warps=4)
    return {"total": total, "part": part}

class Tiles:
    def __init__(self, tensor):
        self.tensor = tensor

def tiles_of(tensor, axis, rows, width):
    return Tiles(tensor) if rows else None

def tiled(inputs, extents, params, config=None):
    x = inputs["x"]
    out = torch.empty((extents["n"],), dtype=x.dtype, device=x.device)
    tiles_of(x, 0, 0, 1)
    tiles = tiles_of(x, 0, extents["n"], 1)
    scale[(1,)](tiles, out, params["start"], N=extents["n"])
    return {"out": out}

def block_bounds(ids, axis, block):
    bounds = torch.empty((4,), dtype=ids.dtype, device=ids.device)
    bound_blocks[(1,)](ids, bounds, 1, N=4)
    return bounds

def looked_up(inputs, extents, params, config=None):
    x = inputs["x"]
    bounds = block_bounds(x, 0, 2)
    out = torch.empty((extents["n"],), dtype=x.dtype, device=x.device)
    scale[(1,)](bounds, out, params["start"], N=extents["n"])
    return {"out": out}

def unknown(inputs, extents, params, config=None):
    x = inputs["x"] + 1
    out = torch.empty((extents["n"],), dtype=x.dtype, device=x.device)
    scale[(1,)](x, out, params["start"], N=extents["n"])
    return {"out": out}
"""


def values(address: int, n: int) -> Any:
    """The floats at an address."""
    return (ctypes.c_float * n).from_address(address)


class Compiled:
    """Machine code that multiplies by `start + 2`."""

    function, packed_metadata = "function", (4, 1, 0)

    def __init__(self) -> None:
        self.runs: list[tuple[Any, ...]] = []
        self.watched = 0

    def run(self, x: int, y: int, z: int, stream: int, *rest: Any) -> None:
        *meta, source, out, start, n = rest
        assert meta == ["function", (4, 1, 0), None, None, None]
        self.runs.append((x, y, z, stream))
        given = values(source.tensor.data_ptr() if hasattr(source, "tensor") else source, n)
        values(out, n)[:] = [v * (start + 2) for v in given]

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launched(source: Tensor, out: Tensor, start: int, n: int, *, stream: int) -> None:
            self.watched += 1
            out.copy_(source * (start + 2))

        return launched


class Kernel:
    """A kernel that compiles once."""

    arg_names = ("x_ptr", "out_ptr", "start", "N")

    def __init__(self) -> None:
        self.compiled = Compiled()
        self.jit = 0

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launched(source: Tensor, out: Tensor, start: int, *, N: int, num_warps: int = 4) -> Any:
            self.jit += 1
            source = getattr(source, "tensor", source)
            out.copy_(source * (start + 2))
            return self.compiled

        return launched


class Knobs:
    launch_enter_hook: Any = None
    launch_exit_hook: Any = None


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    made = ModuleType("made")
    exec(MODULE, made.__dict__)
    made.scale = Kernel()  # type: ignore[attr-defined]
    monkeypatch.setattr(replaying, "_triton", lambda: (Knobs, lambda device: 7))
    return made


def record(
    module: ModuleType, name: str = "forward", moving: bool = False, start: int = 1
) -> tuple[Tensor, Replay | None]:
    watch = Watch(module)
    x = torch.arange(4.0)
    made = watch(name, {"x": x}, {"n": 4}, {"start": start}, None)
    return x, watch.replay((x,), list(made.values()), moving)


def test_one_tensor_in_two_places_may_be_two_in_the_next_call(module: ModuleType) -> None:
    x = torch.arange(4.0)
    first, second = told_apart((x, x))
    assert first is x
    assert second is not x
    assert second.data_ptr() == x.data_ptr()
    watch = Watch(module)
    made = watch("forward", {"x": second}, {"n": 4}, {"start": 1}, None)
    replay = watch.replay((first, second), list(made.values()), False)
    assert replay is not None
    (out,) = replay((torch.zeros(4), torch.ones(4)), 1)
    assert out.tolist() == [3.0] * 4


def test_what_a_function_launches_is_repeated_and_the_function_is_not_called(
    module: ModuleType,
) -> None:
    module.bound_blocks = Kernel()  # type: ignore[attr-defined]
    _, replay = record(module, "looked_up")
    assert replay is not None
    assert [s.grid for s in replay.steps] == [(1, 1, 1), (1, 1, 1)]
    module.block_bounds = None  # type: ignore[attr-defined]
    y = torch.tensor([5.0, 6.0, 7.0, 8.0])
    (out,) = replay((y,), 1)
    assert torch.equal(out, 9 * y)
    assert module.bound_blocks.jit == 1


def test_a_replay_gives_what_the_launcher_gives(module: ModuleType) -> None:
    _, replay = record(module)
    assert replay is not None
    y = torch.tensor([5.0, 6.0, 7.0, 8.0])
    (out,) = replay((y,), 1)
    assert torch.equal(out, 3 * y)
    assert module.scale.jit == 1
    assert module.scale.compiled.runs == [(4, 1, 1, 7)]
    (again,) = replay((y,), 1)
    assert again.data_ptr() != out.data_ptr()


def test_no_tensor_of_the_recorded_call_is_held(module: ModuleType) -> None:
    _, replay = record(module)
    assert replay is not None
    assert not any(isinstance(a, Tensor) for s in replay.steps for a in s.arguments)


def test_start_stands_where_the_call_says(module: ModuleType) -> None:
    _, fixed = record(module)
    _, moving = record(module, moving=True)
    y = torch.ones(4)
    assert fixed is not None
    assert moving is not None
    assert torch.equal(fixed((y,), 9)[0], 3 * y)
    assert torch.equal(moving((y,), 9)[0], 11 * y)


def test_what_the_host_computes_is_repeated_in_its_place(module: ModuleType) -> None:
    _, replay = record(module, "summed")
    assert replay is not None
    y = torch.tensor([1.0, 2.0, 3.0, 4.0])
    total, part = replay((y,), 1)
    assert torch.equal(total, torch.tensor(30.0))
    assert torch.equal(part, 3 * y)


def test_tiles_are_described_anew_for_the_tensors_of_each_call(module: ModuleType) -> None:
    """A description holds an address; where there is none, there is none for any call of the kind."""
    _, replay = record(module, "tiled")
    assert replay is not None
    assert len(replay.steps) == 2
    y = torch.tensor([5.0, 6.0, 7.0, 8.0])
    assert torch.equal(replay((y,), 1)[0], 3 * y)


class Memory:
    """What a generated module describes in place of a tensor."""

    def __init__(self, address: int) -> None:
        self.address = address

    def data_ptr(self) -> int:
        return self.address


class Described:
    """Tiles as Triton describes them."""

    def __init__(self, tensor: torch.Tensor, shape: list[int]) -> None:
        self.base, self.shape, self.strides, self.block_shape = (
            Memory(tensor.data_ptr()),
            shape,
            [1],
            shape,
        )
        self.padding = "zero"


@dataclass
class Mapped:
    """Triton's own way from descriptions to tensor maps, to a launcher and a driver that only take notes."""

    launched: list[tuple[Any, ...]]
    made: list[int]


@pytest.fixture
def mapped(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Mapped:
    driver = pytest.importorskip("triton.backends.nvidia.driver")
    if not hasattr(driver, "wrap_handle_tensordesc"):
        pytest.skip("this Triton takes descriptions otherwise")
    notes = Mapped([], [])

    def tensor_map(described: Any, meta: Any) -> list[Any]:
        assert meta == "meta"
        notes.made.append(described.base.data_ptr())
        return [f"map of {described.base.data_ptr()}", *described.shape, *described.strides]

    def launcher(*arguments: Any) -> None:
        notes.launched.append(arguments)

    monkeypatch.setattr(driver, "make_tensordesc_arg", tensor_map)
    signature = {
        "x_ptr": "tensordesc<fp32[4]>",
        "out_ptr": "*fp32",
        "start": "i32",
        "N": "constexpr",
    }

    class Run:
        launch = staticmethod(driver.wrap_handle_tensordesc(launcher, signature, ["meta"]))
        global_scratch_size = profile_scratch_size = 0
        launch_cooperative_grid, launch_pdl = False, False

    module.scale.compiled.run = Run()
    module.Tiles = lambda tensor: Described(tensor, [4])  # type: ignore[attr-defined]
    monkeypatch.setattr(Kernel, "__getitem__", lambda self, grid: lambda *a, **k: self.compiled)
    return notes


def test_tensor_maps_are_kept_by_address(module: ModuleType, mapped: Mapped) -> None:
    _, replay = record(module, "tiled", moving=True)
    assert replay is not None
    mapped.made.clear()
    y, z = torch.ones(4), torch.zeros(4)
    for x, start in ((y, 5), (z, 6), (y, 7)):
        (out,) = replay((x,), start)
        base = [1, 1, 1, 7, "function", False, False, None, None, (4, 1, 0), None, None, None]
        tiles = [f"map of {x.data_ptr()}", 4, 1]
        assert mapped.launched[-1] == (*base, *tiles, out.data_ptr(), start, 4)
    assert mapped.made == [y.data_ptr(), z.data_ptr()]


def test_tensors_that_lay_in_one_place_may_come_apart(module: ModuleType, mapped: Mapped) -> None:
    """The module keeps descriptions by address, and has one for both."""
    kept: dict[int, Described] = {}
    module.Tiles = lambda x: kept.setdefault(x.data_ptr(), Described(x, [4]))  # type: ignore[attr-defined]
    exec(
        "def pair(inputs, extents, params, config=None):\n"
        "    a, b = (tiles_of(inputs[n], 0, 4, 1) for n in 'ab')\n"
        "    out = torch.empty((4,), dtype=torch.float32, device='cpu')\n"
        "    scale[(1,)](a, out, 0, N=4)\n"
        "    scale[(1,)](b, out, 0, N=4)\n"
        "    return {'out': out}\n",
        module.__dict__,
    )
    x = torch.ones(4)
    watch = Watch(module)
    both = (x, x.view(4))
    made = watch("pair", dict(zip("ab", both, strict=True)), {}, {}, None)
    replay = watch.replay(both, list(made.values()), False)
    assert replay is not None
    mapped.launched.clear()
    y, z = torch.ones(4), torch.zeros(4)
    replay((y, z), 0)
    assert [a[13] for a in mapped.launched] == [f"map of {n.data_ptr()}" for n in (y, z)]


def test_a_replay_by_the_shortest_way_holds_no_tensor(module: ModuleType, mapped: Mapped) -> None:
    watch = Watch(module)
    x = torch.arange(4.0)
    made = watch("tiled", {"x": x}, {"n": 4}, {"start": 1}, None)
    replay = watch.replay((x,), list(made.values()), False)
    assert replay is not None
    gone = weakref.ref(x)
    del x, made, watch
    gc.collect()
    assert gone() is None


def test_what_cannot_be_told_apart_is_not_repeated(module: ModuleType) -> None:
    watch = Watch(module)
    x = torch.arange(4.0)
    made = watch("forward", {"x": x}, {"n": 4}, {"start": 1}, None)
    assert watch.replay((x, x), list(made.values()), False) is None


def test_what_comes_from_nowhere_is_not_repeated(module: ModuleType) -> None:
    assert record(module, "unknown")[1] is None


def test_an_interpreter_is_not_repeated(module: ModuleType) -> None:
    class Interpreted(Kernel):
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            compiled = super().__getitem__(grid)

            def launched(*a: Any, **k: Any) -> None:
                compiled(*a, **k)

            return launched

    module.scale = Interpreted()  # type: ignore[attr-defined]
    assert record(module)[1] is None


def test_somebody_who_listens_to_launches_hears_them(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Chain:
        calls = (print,)

    _, replay = record(module)
    assert replay is not None
    monkeypatch.setattr(Knobs, "launch_enter_hook", Chain)
    y = torch.ones(4)
    assert torch.equal(replay((y,), 1)[0], 3 * y)
    assert module.scale.compiled.watched == 1


def test_kinds_differ_where_a_launch_would() -> None:
    x = torch.zeros(8, 8)
    base = kind_of((x,))
    assert kind_of((torch.ones(8, 8),)) == base
    for other in (x[:4], x.T[:, :8].T.T, x.half(), torch.zeros(65)[1:].view(8, 8)):
        assert kind_of((other,)) != base


def test_a_copy_of_a_launcher_leaves_the_module_alone(module: ModuleType) -> None:
    kernel = module.scale
    recorder = Recorder(kernel)
    x = torch.arange(4.0)
    rebound(module, "forward", {"scale": recorder})({"x": x}, {"n": 4}, {"start": 0})
    assert module.scale is kernel
    (launch,) = recorder.launches
    assert isinstance(launch, Launch)
    assert launch.grid == (4,)
    assert launch.arguments()[2:] == (0, 4)


# --- the operator ---

FULL = """
attention full(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""


def tensors() -> tuple[Tensor, ...]:
    return tuple(torch.randn(1, 2, 8, 16) for _ in range(3))


def test_modes_see_an_operator() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: list[str] = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    op = attndsl.compile(FULL)
    given = tensors()
    plain = op(*given)
    with Mode():
        watched = op(*given)
    assert torch.equal(plain, watched)
    assert any("attndsl.full" in s for s in seen)


def test_a_profiler_sees_an_operator() -> None:
    op = attndsl.compile(FULL)
    given = tensors()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        op(*given)
    assert any("attndsl::full" in e.key for e in profile.key_averages())


def test_a_plain_call_goes_past_the_dispatcher() -> None:
    op = attndsl.compile(FULL)
    given = tensors()

    def refused(*args: Any) -> Any:
        raise AssertionError("through the dispatcher")

    expected = op(*given)
    op._op = refused  # type: ignore[assignment]
    assert torch.equal(op(*given), expected)
    leaves = [x.requires_grad_() for x in given]
    (op(*leaves)).sum().backward()
    assert all(x.grad is not None for x in leaves)
    with pytest.raises(AssertionError, match="dispatcher"), torch.autocast("cpu", torch.bfloat16):
        op(*given)


def test_subclasses_go_through_the_dispatcher() -> None:
    class Mine(Tensor):
        pass

    op = attndsl.compile(FULL)
    q, k, v = tensors()
    made = op(q.as_subclass(Mine), k, v)
    assert isinstance(made, Mine)
    assert torch.equal(made.as_subclass(Tensor), op(q, k, v))
