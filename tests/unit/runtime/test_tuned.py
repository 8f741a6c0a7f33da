"""Tuned configurations on the way to a launch; tuning from inside a call; kernels compiled beforehand."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import attndsl
from attndsl.runtime import autotune, few, tuned
from attndsl.runtime.engine import Start
from attndsl.runtime.launches import Launch
from attndsl.schedule.composed import PIECES
from attndsl.tuning.database import Entry, Key
from attndsl.tuning.store import store
from attndsl.tuning.tune import Found

ROOT = Path(__file__).parents[3]
H100 = SimpleNamespace(
    name="H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    shared_memory_per_block_optin=227 << 10,
    shared_memory_per_multiprocessor=228 << 10,
    clock_rate=1.83e6,
)


@pytest.fixture(autouse=True)
def _store(_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ATTNDSL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    store.cache_clear()
    autotune._tried.clear()
    yield
    store.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU as far as its name and sizes go."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: H100)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(few, "multiprocessors", lambda device: 132)
    tuned.gpu_name.cache_clear()


def load(name: str = "causal", **more: Any) -> attndsl.CompiledAttention:
    return attndsl.load(ROOT / "examples" / f"{name}.attn", backend="triton", **more)


def phantoms(i: int = 4096, j: int = 4096, d: int = 128) -> tuple[Tensor, ...]:
    with FakeTensorMode():
        q = torch.empty(4, 16, i, d, dtype=torch.bfloat16, device="cuda")
        k, v = (torch.empty(4, 16, j, d, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    return q, k, v


def keys(op: attndsl.CompiledAttention, wrt: str = "") -> dict[str, Key]:
    given = phantoms()
    call = op._engine.prepare(given, Start(), (), wrt)
    inputs = dict(zip(op._inputs, given, strict=True))
    return tuned.keys(op.cascade, call.stage, inputs, call.extents)


def entry(key: Key, rows: int = 128) -> Entry:
    config = {"BLOCK_I": rows, "BLOCK_J": 64, "num_warps": 8, "num_stages": 3}
    return Entry(key, config, 1.0, 2.0, tuned.triton_version(), 1.0)


# --- looking up ---


@pytest.mark.parametrize(
    ("portable_ms", "special_ms", "taken"),
    [(1.0, 0.8, {"STAGES": 3}), (1.0, 1.2, {}), (None, 0.8, None), (1.0, None, None)],
)
def test_the_faster_of_two_forms_is_what_a_search_measured(
    gpu: None,
    monkeypatch: pytest.MonkeyPatch,
    portable_ms: float | None,
    special_ms: float | None,
    taken: dict[str, int] | None,
) -> None:
    """Without both times the module's own rule stands."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    def auto() -> attndsl.CompiledAttention:
        return attndsl.load(ROOT / "examples" / "causal.attn", backend="auto")

    wanted = keys(auto())
    assert list(wanted) == ["causal", "causal_hopper"]
    if portable_ms is not None:
        store().add([dataclasses.replace(entry(wanted["causal"]), ms=portable_ms)])
    if special_ms is not None:
        made = Entry(
            wanted["causal_hopper"], {"STAGES": 3}, special_ms, 2.0, tuned.triton_version()
        )
        store().add([made])
    config = auto()._engine.prepare(phantoms(), Start(), (), "").config or {}
    assert config.get("causal_hopper") == taken
    assert ("causal" in config) == (portable_ms is not None)


def test_an_entry_reaches_the_call(gpu: None) -> None:
    op = load()
    key = keys(op)["causal"]
    assert (key.gpu, key.dtypes, key.dims) == ("H100", "bf16", "e=128 f=128")
    assert key.bucket == "programs=64 i=4096 j=4096"
    store().add([entry(key)])
    call = load()._engine.prepare(phantoms(), Start(), (), "")
    assert call.config == {"causal": dict(entry(key).config)}


def test_training_finds_what_tuning_wrote(gpu: None) -> None:
    """The keys of a call and those of `attndsl tune` are the same."""
    from attndsl.tuning.keys import key_of
    from attndsl.tuning.machine import machine_of
    from attndsl.tuning.problem import hash_of
    from attndsl.tuning.tune import posed, sizes_at

    op = load()
    machine = machine_of(H100)
    at = sizes_at(op.cascade, {"h": 16})
    problems = posed(op.cascade, at, "bf16", machine, ("Q", "K", "V"))
    written = {
        k.name: key_of(k, hash_of(op.cascade), p.extents, p.floats(), machine.name)
        for p in problems
        for k in p.kernels
    }
    assert len(written) == 3
    assert keys(op, "Q,K,V") == written


@pytest.mark.parametrize("card", ["H100", "A100"])
def test_the_first_call_compiles_nothing_that_tuning_has_compiled(
    gpu: None, card: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels of a tuned problem and of an operator have one key in the compiler's cache, on Hopper in both forms."""
    from attndsl.runtime import engine
    from attndsl.tuning.compiling import load as module_of
    from attndsl.tuning.machine import MACHINES
    from attndsl.tuning.tune import posed, sizes_at

    hopper = card == "H100"
    monkeypatch.setattr(engine, "is_hopper", lambda device: hopper)
    op = attndsl.load(ROOT / "examples" / "causal.attn")
    at = sizes_at(op.cascade, {"h": 16})
    problems = posed(op.cascade, at, "bf16", MACHINES[card], ("Q", "K", "V"), specialise=True)
    stage = op._engine.prepare(phantoms(), Start(), (), "Q,K,V").stage
    assert {bool(p.special) for p in problems} == {hopper}
    for p in problems:
        tried = module_of(str(p.module))
        for k in p.every:
            assert getattr(tried, k.name).cache_key == getattr(stage.module, k.name).cache_key


def test_without_an_entry_the_module_chooses(gpu: None) -> None:
    assert load()._engine.prepare(phantoms(), Start(), (), "").config is None


def test_few_queries_look_for_the_split_kernels(gpu: None) -> None:
    op = load()
    given = phantoms(i=1, j=8192)
    call = op._engine.prepare(given, Start("end"), (), "")
    inputs = dict(zip(op._inputs, given, strict=True))
    found = tuned.keys(op.cascade, call.stage, inputs, call.extents)
    assert sorted(found) == ["causal_merge", "causal_slices"]


def test_what_is_looked_up_is_what_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    op = load()
    monkeypatch.setattr(
        op._engine, "tuned", lambda *a: {"causal": {"BLOCK_I": 16, "num_stages": 4}}
    )
    q, k, v = (torch.randn(1, 2, 64, 32) for _ in range(3))
    call = op._engine.prepare((q, k, v), Start(), (), "")
    seen: list[Launch] = []

    class Kernel:
        arg_names = call.stage.module.causal.arg_names

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *a, **kw: seen.append(Launch(self, grid, a, kw))

    call.stage.module.causal = Kernel()
    op(q, k, v)
    (launch,) = seen
    assert launch.grid == (2 * 64 // 16,)
    assert launch.keyword["BLOCK_I"] == 16
    assert launch.keyword["num_stages"] == launch.keyword["NUM_STAGES"] == 4


# --- autotune ---


def fake_tune(calls: list[dict[str, Any]], key: Key | None) -> Any:
    def run(cascade: Any, at: Any, dtype: str, machine: Any, **more: Any) -> list[Any]:
        calls.append({"at": at, "dtype": dtype, "machine": machine.name, **more})
        return [] if key is None else [Found(None, None, None, entry(key))]  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize("mode", ["never", "once", "always"])
def test_a_call_searches_only_if_asked_to(
    gpu: None, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys(load())["causal"]
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(autotune, "tune", fake_tune(calls, key))
    op = load(autotune=mode)
    call = op._engine.prepare(phantoms(), Start(), (), "")
    op._engine.prepare(phantoms(), Start(), (), "")
    assert len(calls) == (mode != "never")
    if calls:
        assert calls[0]["dtype"] == "bf16"
        assert calls[0]["wrt"] == ()
        assert calls[0]["at"].shapes["Q"] == (4, 16, 4096, 128)
        assert call.config == {"causal": dict(entry(key).config)}
    # Another operator of the program, and other lengths of the same bucket: nothing more to search for.
    again = load(autotune=mode)
    again._engine.prepare(phantoms(i=4000, j=4000), Start(), (), "")
    assert len(calls) == (mode != "never")


def test_what_is_known_is_not_searched_for_once_more(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store().add([entry(keys(load())["causal"])])
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(autotune, "tune", fake_tune(calls, None))
    load(autotune="once")._engine.prepare(phantoms(), Start(), (), "")
    assert not calls
    load(autotune="always")._engine.prepare(phantoms(), Start(), (), "")
    assert len(calls) == 1


def test_a_form_that_does_not_fit_is_not_searched_for_in_every_process(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search leaves no entry for kernels whose warps specialise where there is no room for them."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    calls: list[dict[str, Any]] = []
    for known in (False, True):
        op = attndsl.load(ROOT / "examples" / "causal.attn", backend="auto", autotune="once")
        portable = keys(attndsl.load(ROOT / "examples" / "causal.attn", backend="auto"))["causal"]
        monkeypatch.setattr(autotune, "tune", fake_tune(calls, portable))
        op._engine.prepare(phantoms(), Start(), (), "")
        assert len(calls) == 1, known
        autotune._tried.clear()
    assert calls[0]["specialise"]


def test_a_search_that_fails_does_not_keep_a_call_from_running(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*a: Any, **k: Any) -> Any:
        raise RuntimeError("no process starts here")

    monkeypatch.setattr(autotune, "tune", broken)
    with pytest.warns(UserWarning, match="causal: tuning: no process starts here"):
        call = load(autotune="once")._engine.prepare(phantoms(), Start(), (), "")
    assert call.config is None


def test_nothing_is_searched_while_a_graph_is_captured(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(autotune, "tune", fake_tune(calls, None))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    load(autotune="always")._engine.prepare(phantoms(), Start(), (), "")
    assert not calls


def test_nothing_is_searched_for_walks_in_pieces(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search times whole walks, and would find no entry for the kernels between in any process."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(autotune, "tune", fake_tune(calls, None))
    op = load("linear_identity", autotune="always")
    with FakeTensorMode():
        one = torch.empty(1, 1, 4096, 128, dtype=torch.bfloat16, device="cuda")
    assert op._engine.prepare((one, one, one), Start(), (), "").extents[PIECES] > 1
    assert not calls
    op._engine.prepare(phantoms(), Start(), (), "")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("name", "wrt"), [("gla", "Q,K,V,loga"), ("latte", ""), ("latte", "Q,K,V"), ("full", "")]
)
def test_where_nothing_is_known_every_kind_of_call_is_prepared(
    gpu: None, monkeypatch: pytest.MonkeyPatch, name: str, wrt: str
) -> None:
    """One head, whose walk is cut in pieces if they fit; few queries, whose keys are split."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    op = load(name)
    lengths = {"i": 1 if name == "full" else 16384}
    ranks = {"b": 1, "h": 1, "e": 128, "f": 128, "l": 128, "j": 16384, **lengths}
    with FakeTensorMode():
        given = tuple(
            torch.empty(
                [ranks[r] for r in t.ranks],
                dtype=torch.float32 if t.name == "loga" else torch.bfloat16,
                device="cuda",
            )
            for t in op.cascade.inputs
        )
    found = op._engine.prepare(given, Start(), (), wrt)
    if name == "full":
        assert found.stage.few is not None
    elif (name, wrt) == ("latte", "Q,K,V"):  # a walk that starts from a given state holds too much
        assert PIECES not in found.extents
    else:
        assert found.extents[PIECES] > 1


def test_the_mode_is_checked_and_travels() -> None:
    with pytest.raises(ValueError, match="autotune 'sometimes' is none of never, once, always"):
        load(autotune="sometimes")
    op = load(autotune="once")
    assert pickle.loads(pickle.dumps(op))._engine.autotune == "once"
    assert copy.deepcopy(op) is op


# --- warmup ---


def test_kernels_are_compiled_beforehand(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import driver

    from attndsl.tuning.compiling import Cross

    card = Cross(90)
    built: list[str] = []
    card.launcher_cls = lambda src, metadata: built.append(src.name)  # type: ignore[attr-defined]
    monkeypatch.setattr(driver, "_active", card, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    op = load()
    shape = (1, 2, 256, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        op.warmup({"Q": shape, "K": shape, "V": shape}, backward=True)
    # And what launches them, for which a C compiler would run at the first call.
    assert set(built) == {"causal", "causal_backward_D_dQ", "causal_backward_dK_dV"}
    (stage,) = op._engine.stages.values()
    for name in ("causal", "causal_backward_D_dQ", "causal_backward_dK_dV"):
        cache = getattr(stage.module, name).device_caches[0][0]
        (compiled,) = cache.values()
        assert compiled.asm["cubin"]
    # Other lengths need nothing more.
    longer = (1, 2, 999, 64)
    op.warmup({"Q": longer, "K": longer, "V": longer}, backward=True)
    assert len(op._engine.stages) == 1
    assert len(stage.module.causal.device_caches[0][0]) == 1


def test_warming_up_checks_shapes_and_names() -> None:
    op = load()
    shape = (1, 2, 256, 64)
    with pytest.raises(attndsl.CallError, match="the shape of input `V` is missing"):
        op.warmup({"Q": shape, "K": shape}, device="cpu")
    with pytest.raises(attndsl.CallError, match="there is no parameter `w`"):
        op.warmup({"Q": shape, "K": shape, "V": shape}, device="cpu", w=3)


def test_warming_up_without_a_gpu_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shape = (1, 2, 256, 64)
    with pytest.raises(attndsl.CallError, match="A0520") as caught:
        load().warmup({"Q": shape, "K": shape, "V": shape})
    assert "attndsl compile --tuned" in str(caught.value)


def test_the_eager_form_has_nothing_to_compile() -> None:
    op = attndsl.load(ROOT / "examples" / "causal.attn")
    shape = (1, 2, 256, 64)
    op.warmup({"Q": shape, "K": shape, "V": shape}, device="cpu", backward=True)
    with pytest.raises(attndsl.CallError, match="A0503"):
        op.warmup({"Q": shape, "K": shape, "V": (1, 2, 255, 64)}, device="cpu")
