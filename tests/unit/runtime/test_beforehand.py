"""Kernels that threads compile before they are launched."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.runtime import beforehand
from attndsl.runtime.beforehand import Beforehand, collected, light
from attndsl.runtime.launches import Launch
from attndsl.sizes import Scale, sizes
from tests.unit.runtime.counting import TYPES, Counted, tensor

ROOT = Path(__file__).parents[3]


def cascade(name: str) -> Any:
    return load_cascades(read_source(ROOT / "examples" / f"{name}.attn"))[0]


class Twice(Counted):
    """Looks every launch up twice: as it is, and as a thread would compile it."""

    def look_up(self, launch: Launch) -> None:
        super().look_up(launch)
        before = set(self.keys)
        without = light(launch)
        held = (*without.positional, *without.keyword.values())
        assert not any(isinstance(x, torch.Tensor) and not x.data_ptr() % 16 for x in held)
        assert not any(isinstance(getattr(x, "base", None), torch.Tensor) for x in held)
        super().look_up(without)
        assert self.keys == before, launch.kernel.__name__


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("name", ["causal", "documents", "simple_gla"])
def test_a_launch_without_tensors_is_compiled_the_same(name: str, aligned: bool) -> None:
    assert len(Twice(cascade(name)).call(96, 2, 2, aligned)) > 2


def prepared(name: str) -> tuple[Any, dict[str, Any]]:
    """A call on a card that is not there, and its inputs."""
    counted = Counted(cascade(name))
    found = sizes(counted.program, Scale(1, 4, 64, 16, 32, 16, 2, 8), {})
    inputs = {
        t.name: tensor(found.shapes[t.name], TYPES[t.dtype], True) for t in counted.program.inputs
    }
    extents = counted.stage.extents(found.extents, {**found.params, "start": 0})
    return SimpleNamespace(stage=counted.stage, extents=extents, config=None), inputs


def test_what_both_passes_launch_is_found_without_launching_it() -> None:
    call, inputs = prepared("causal")
    names = [n for n, _ in collected(call, inputs, {"start": 0}, adding=False)]
    assert names == ["causal", "causal_backward_D_dQ", "causal_backward_dK_dV"]


def test_all_but_the_first_kernel_are_compiled_by_others_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call, inputs = prepared("causal")
    go, by = threading.Event(), []

    def compiled(launch: Launch, device: torch.device) -> None:
        assert go.wait(20)
        by.append(threading.current_thread())

    monkeypatch.setattr(beforehand, "worth", lambda stage, device: True)
    monkeypatch.setattr(beforehand, "compiled", compiled)
    begun = Beforehand()
    wait = begun.begin(call, inputs, {"start": 0}, adding=False)
    wait("causal")  # is not waited for
    assert not by
    threading.Timer(0.2, go.set).start()
    later = begun.waiting(call.stage, inputs["Q"].device)
    later("causal_backward_dK_dV")
    later("causal_backward_D_dQ")
    assert len(by) == 2
    assert threading.current_thread() not in by
    begun.begin(call, inputs, {"start": 0}, adding=False)("causal_backward_dK_dV")
    assert len(by) == 2


def test_what_goes_wrong_is_left_to_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    call, inputs = prepared("causal")
    monkeypatch.setattr(beforehand, "worth", lambda stage, device: True)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("no room for gradients")

    monkeypatch.setattr(beforehand, "collected", full)
    Beforehand().begin(call, inputs, {"start": 0}, adding=False)("causal_backward_dK_dV")


def test_without_a_card_there_is_nothing_to_compile() -> None:
    call, inputs = prepared("causal")
    begun = Beforehand()
    begun.begin(call, inputs, {"start": 0}, adding=False)
    assert not begun.jobs[call.stage]
