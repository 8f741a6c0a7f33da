"""Which assembler kernels go through: a sound one where Triton ships one, and the user's where one was named."""

from __future__ import annotations

import threading

import pytest

from attndsl.codegen import toolkit
from attndsl.codegen.toolkit import SOUND, sound_assembler

knobs = pytest.importorskip("triton.knobs")
compiler = pytest.importorskip("triton.backends.nvidia.compiler")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_PTXAS_PATH", raising=False)


def _version() -> tuple[int, ...]:
    return toolkit._version(knobs.nvidia.ptxas)


def test_a_sound_assembler_is_chosen_inside_and_no_longer() -> None:
    before, kept = knobs.nvidia.ptxas, compiler.get_ptxas_version(90)
    with sound_assembler():
        assert _version() >= SOUND
        inside = compiler.get_ptxas_version(90)
    assert knobs.nvidia.ptxas == before
    assert compiler.get_ptxas_version(90) == kept
    assert (inside != kept) is (_version() < SOUND)  # Triton's key holds the version


def test_the_last_to_leave_gives_the_choice_back() -> None:
    before = knobs.nvidia.ptxas
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with sound_assembler():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(60)
    with sound_assembler():
        pass
    assert _version() >= SOUND
    leave.set()
    thread.join()
    assert knobs.nvidia.ptxas == before


def test_it_comes_back_after_an_error() -> None:
    before = knobs.nvidia.ptxas
    with pytest.raises(RuntimeError, match="no"), sound_assembler():
        raise RuntimeError("no")
    assert knobs.nvidia.ptxas == before


def test_an_assembler_that_the_user_names_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    path = knobs.nvidia.ptxas.path
    monkeypatch.setenv("TRITON_PTXAS_PATH", path)
    with sound_assembler():
        assert knobs.nvidia.ptxas.path == path


def test_nothing_happens_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "_better", lambda: None)
    before = knobs.nvidia.ptxas
    with sound_assembler():
        assert knobs.nvidia.ptxas == before
