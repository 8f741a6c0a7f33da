"""What an autotuner chooses among is compiled before it times anything, and by several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402
from triton.runtime import driver  # noqa: E402

from attndsl.bench.together import together  # noqa: E402
from attndsl.tuning.compiling import Cross, phantom  # noqa: E402

CONFIGS = [triton.Config({"N": n}, num_warps=4) for n in (16, 32, 48, 64)]


@triton.autotune(configs=CONFIGS, key=["size"])
@triton.jit
def doubled(x, out, size, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + at, 2 * tl.load(x + at, at < size), at < size)


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[None]:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    before = driver._active
    driver.set_active(Cross(90))
    yield
    driver._active = before


@pytest.mark.usefixtures("no_card")
def test_all_are_compiled_before_the_first_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()
    compiled: list[int] = []
    plain = triton.compiler.compile

    def noted(*args: Any, **kwargs: Any) -> Any:
        threads.add(threading.get_ident())
        made = plain(*args, **kwargs)
        compiled.append(1)
        return made

    monkeypatch.setattr(triton.compiler, "compile", noted)
    monkeypatch.setattr("attndsl.bench.together.processors", lambda: 2)

    class Timed(Exception):
        pass

    def bench(self: Any, *args: Any, config: Any, **meta: Any) -> Any:
        # Three in all: 48 numbers are no tile, which is the autotuner's to find.
        assert len(compiled) == 3
        raise Timed

    monkeypatch.setattr(type(doubled), "_bench", bench)
    x = phantom([[1024], "float32", [1]])
    with together(), pytest.raises(Timed):
        doubled[(16,)](x, x, 1024)
    assert threads
    assert threading.get_ident() not in threads


def test_the_autotuner_is_as_it_was_afterwards() -> None:
    before = type(doubled).prune_configs
    with together():
        assert type(doubled).prune_configs is not before
    assert type(doubled).prune_configs is before
