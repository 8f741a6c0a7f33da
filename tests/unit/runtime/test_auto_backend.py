"""`backend="auto"`: which calls take a kernel whose warps specialise, without a card."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import attndsl
from attndsl.codegen.configs import worth_warps
from attndsl.runtime import replay
from attndsl.runtime.cache import load_module
from attndsl.runtime.engine import Engine
from attndsl.runtime.stages import Stage
from attndsl.runtime.watching import Watch
from attndsl.tuning.compiling import Cross

EXAMPLES = Path(__file__).parents[3] / "examples"
LARGE = {"b": 4, "h": 16, "i": 4096, "j": 4096, "e": 128, "f": 128, "|G|": 1, "K.1": 16}


def stage(example: str) -> Stage:
    op = attndsl.load(EXAMPLES / f"{example}.attn", backend="auto")
    return op._engine.stage("none", ("Q", "K", "V"), "auto")


def taken(example: str, **changed: int) -> list[str]:
    """The steps that a large call takes by kernels whose warps specialise."""
    made = stage(example).module.HOPPER
    worth = [k for k, v in made.items() if worth_warps(v["facts"], LARGE | changed, 128, 132)]
    return [k.removeprefix(example).removesuffix("_hopper") for k in worth]


@pytest.mark.parametrize("example", ["full", "causal", "prefix_lm", "alibi", "sink_softmax"])
def test_long_sweeps(example: str) -> None:
    kernels = ["".join(k.partition("D_dQ")[:2]) for k in taken(example)]
    assert kernels == ["", "_backward_D_dQ", "_backward_dK_dV"]


@pytest.mark.parametrize("example", ["full", "causal"])
def test_a_sum_of_two_products_of_narrow_heads_stays_portable(example: str) -> None:
    assert taken(example, e=64, f=64) == ["", "_backward_dK_dV"]


def test_more_than_four_tiles_of_scores_and_sums_stay_portable() -> None:
    assert taken("softcap") == ["", "_backward_D_dQ"]
    assert taken("softpick") == ["", "_backward_dV"]


def test_a_window() -> None:
    assert taken("window") == ["", "_backward_D_dQ", "_backward_dK_dV"]
    assert taken("window", e=64, f=64) == ["_backward_dK_dV"]


@pytest.mark.parametrize("example", ["streaming_llm", "window_sink"])
def test_a_window_beside_the_first_keys(example: str) -> None:
    """Between two stretches what is loaded ahead is waited for: one product a step does not hide it."""
    kernels = ["".join(k.partition("D_dQ")[:2]) for k in taken(example)]
    assert kernels == ["_backward_D_dQ", "_backward_dK_dV"]


def test_documents() -> None:
    assert taken("documents") == ["", "_backward_D_dQ", "_backward_dK_dV"]
    assert taken("documents", e=96, f=96) == ["_backward_D_dQ", "_backward_dK_dV"]
    assert "" in taken("documents", e=256, f=256)


@pytest.mark.parametrize(
    "change", [{"f": 64}, {"f": 32, "e": 32}, {"i": 2048, "j": 2048}, {"b": 1, "h": 8}]
)
def test_what_was_not_measured_stays_portable(change: dict[str, int]) -> None:
    assert taken("causal", **change) == []


def test_what_explain_says_is_what_is_asked() -> None:
    """What the facts of a kernel say is what `worth_warps` asks."""
    forward = stage("full").module.HOPPER["full_hopper"]["facts"]
    for d in (32, 64, 96, 128, 256):
        assert bool(taken("full", e=d, f=d)) == (d in forward["worth"])
    least = forward["worth"][128]
    assert taken("full", i=least, j=least)
    assert not taken("full", i=least - 1, j=least - 1)


def test_split_keys_stay_portable() -> None:
    made = stage("causal")
    assert made.few is not None
    assert not any("slices" in k for k in made.module.HOPPER)


@pytest.mark.parametrize(
    ("major", "autotune", "backend"),
    [(9, "never", "auto"), (8, "never", "triton"), (10, "never", "triton"), (9, "once", "auto")],
)
def test_only_where_warps_specialise(
    monkeypatch: pytest.MonkeyPatch, major: int, autotune: str, backend: str
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    op = attndsl.load(EXAMPLES / "causal.attn", backend="auto", autotune=autotune)
    engine: Engine = op._engine
    assert engine.backend_of(torch.device("cuda", 0)) == backend
    assert engine.backend_of(torch.device("cpu")) == "eager"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the compute capability of a card that is not there."""
    from triton.runtime import driver

    def there(capability: int) -> None:
        monkeypatch.setattr(driver, "_active", Cross(capability))

    return there


def test_a_phantom_is_compiled_for_the_kernel_that_a_call_would_take(card: Any) -> None:
    hopper = stage("causal").module.hopper
    x = torch.empty((4, 16, 4096, 128), dtype=torch.bfloat16, device="meta")
    card(90)
    made = hopper("causal_hopper", (x,), LARGE, None)
    assert made is not None
    assert made["GROUPS"] == 2
    assert hopper("causal_hopper", (x,), LARGE | {"i": 64, "j": 64}, None) is None
    card(80)
    assert hopper("causal_hopper", (x,), LARGE, None) is None


def test_what_was_measured_goes_before_the_rule(card: Any) -> None:
    """An empty configuration says that the portable kernel was faster."""
    hopper = stage("causal").module.hopper
    x = torch.empty((1, 2, 64, 128), dtype=torch.bfloat16, device="meta")
    small = LARGE | {"b": 1, "h": 2, "i": 64, "j": 64}
    card(90)
    found = {"causal_hopper": {"STAGES": 3}}
    assert hopper("causal_hopper", (x,), small, None) is None
    assert hopper("causal_hopper", (x,), small, found)["STAGES"] == 3
    assert hopper("causal_hopper", (x,), LARGE, {"causal_hopper": {}}) is None
    assert hopper("causal_hopper", (x,), LARGE, {"portable": {"": 1}}) is None
    assert hopper("causal_hopper", (x,), LARGE, {"causal": {"num_warps": 8}}) is not None
    card(80)
    assert hopper("causal_hopper", (x,), small, found) is None


def test_a_launch_of_a_special_kernel_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay that left it out would return memory that nobody wrote."""
    text = (
        "KERNELS = {}\nHOPPER = {'fast': {'arguments': [('x', 'tiles', 'x'), ('o', 'tensor', 'o')]}}\n"
        "class Tiles:\n"
        "    def __init__(self, base, box):\n"
        "        self.base, self.shape, self.strides, self.block_shape = base, [1], [1], box\n"
        "def memory_tiles(tensor, box):\n    return Tiles(tensor, box)\n"
        "def forward(inputs):\n"
        "    x = inputs['x']\n"
        "    o = torch.empty((1,), dtype=x.dtype, device=x.device)\n"
        "    fast[(1,)](memory_tiles(x, [1]), o)\n"
        "    return {'o': o}\n"
    )
    module: Any = load_module(f"import torch\n{text}", "auto_watched")
    ran: list[Any] = []

    def run(x: int, y: int, z: int, stream: int, *rest: Any) -> None:
        ran.append(rest[-2:])

    compiled = SimpleNamespace(packed_metadata=(), function="function", run=run)

    class Kernel:
        arg_names = ("x", "o")

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda x, o: compiled

    module.fast = Kernel()
    knobs = SimpleNamespace(launch_enter_hook=None, launch_exit_hook=None)
    monkeypatch.setattr(replay, "_triton", lambda: (knobs, lambda device: 0))
    x, y = torch.zeros(1), torch.ones(1)
    watch = Watch(module)
    made = watch("forward", {"x": x})
    again = watch.replay([x], [made["o"]], moving=False)
    assert again is not None
    (o,) = again([y], 0)
    ((tiles, out),) = ran
    assert tiles.base is y
    assert out == o.data_ptr()
