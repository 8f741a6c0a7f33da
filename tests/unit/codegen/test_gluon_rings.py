"""The producer and the consumers of kernels whose warps specialise, run against each other without a card.

Both functions are run as plain Python in threads of their own: barriers are real, all values but whole numbers are
stand-ins. Whoever waits for a tile that nobody brings, or for a stage that nobody gives back, waits for ever.
"""

from __future__ import annotations

import ast
import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attndsl import driver
from attndsl.codegen.aot import kernel_table
from attndsl.output import module_text

EXAMPLES = Path(__file__).parents[3] / "examples"
EXAMPLE_NAMES = ["causal", "full", "gqa", "alibi", "softcap", "bias_broadcast", "window"]
EXAMPLE_NAMES += ["documents"]
STAGES, GROUPS, PATIENCE = 2, 2, 10.0
INIT = re.compile(r"mbarrier\.init\((\w+)(\.index\((?:stage|group)\))?, count=(\w+)\)")


class Value:
    """Any number that no loop and no barrier depends on."""

    def __getattr__(self, name: str) -> Any:
        return Value()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return Value()

    def __getitem__(self, key: Any) -> Any:
        return Value()


def _operator(self: Any, other: Any = None) -> Any:
    return Value()


OPERATORS = ["add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "mod"]
OPERATORS += ["and", "rand", "or", "lt", "le", "gt", "ge", "eq", "ne", "neg"]
for _name in OPERATORS:
    setattr(Value, f"__{_name}__", _operator)


class Whole(int):
    """A whole number with the methods of a scalar."""

    def to(self, kind: Any) -> Any:
        return Value()


class Turns:
    """The host's list for a lone program, and a place in it."""

    def __init__(self, tiles: int, at: int = 0) -> None:
        self.tiles, self.at = tiles, at

    def __add__(self, more: int) -> Turns:
        return Turns(self.tiles, self.at + more)

    def read(self) -> Whole:
        return Whole([self.tiles, *range(self.tiles)][self.at])


class Dealt:
    """How many tiles were taken, and the one that is told."""

    def __init__(self) -> None:
        self.taken, self.told = 0, Whole(0)

    def take(self, *_: object, **__: object) -> Whole:
        self.taken += 1
        return Whole(self.taken - 1)

    def store(self, turn: Whole) -> None:
        self.told = turn

    def load(self, _: object) -> Whole:
        return self.told


class Barrier:
    """One phase after the other, each over when `count` have arrived."""

    def __init__(self, count: int) -> None:
        self.count, self.left, self.phase = count, count, 0
        self.changed = threading.Condition()

    def arrive(self) -> None:
        with self.changed:
            self.left -= 1
            if not self.left:
                self.left, self.phase = self.count, self.phase + 1
                self.changed.notify_all()

    def wait(self, parity: int) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: self.phase & 1 != parity, PATIENCE):
                raise TimeoutError


class Ring:
    """A barrier for each stage."""

    def __init__(self, count: int) -> None:
        self.stages = [Barrier(count) for _ in range(STAGES)]

    def index(self, stage: int) -> Barrier:
        return self.stages[stage]


def whole(fn: Any) -> Any:
    """`fn` of whole numbers; of anything else nobody needs the value."""

    def call(*args: Any) -> Any:
        return Whole(fn(*args)) if all(isinstance(a, int) for a in args) else Value()

    return call


def surroundings() -> dict[str, Any]:
    """What the text of both functions finds, but for their arguments."""
    tl = Value()
    tl.__dict__ |= {
        "cdiv": whole(lambda a, b: -(-a // b)),
        "maximum": whole(max),
        "minimum": whole(min),
        "where": whole(lambda c, a, b: a if c else b),
        "cast": lambda x, kind: Whole(x) if isinstance(x, int) else Value(),
        "program_id": lambda axis: 0,
        "num_programs": lambda axis: 1,
        "max": lambda x, axis: x if isinstance(x, Whole) else Value(),
        "atomic_add": Dealt().take,
        "load": lambda at, *_, **__: at.read() if isinstance(at, Turns) else Value(),
    }
    gl = Value()
    gl.__dict__ |= {"static_range": range}
    gl.__dict__ |= {"full": lambda shape, x, *_: x if isinstance(x, Whole) else Value()}
    mbarrier = SimpleNamespace(
        wait=lambda b, parity, pred=True: b.wait(parity) if pred else None,
        arrive=lambda b, count: b.arrive(),
        expect=lambda b, size: b.arrive(),
    )
    helpers = {
        "floor_div": whole(lambda a, b: a // b),
        "reach_of_tile": lambda *tile: (Whole(0), Whole(90), Whole(32), Whole(64)),
        "following": lambda stage, phase, n: (Whole((stage + 1) % n), phase ^ (stage + 1 == n)),
        "give_back": lambda b: b.arrive(),
        "warpgroup_mma_wait": lambda left, deps: deps[0] if len(deps) == 1 else deps,
    }
    return helpers | {"tl": tl, "gl": gl, "mbarrier": mbarrier, "range": range}


def barriers(text: str, kernel: str) -> dict[str, Any]:
    """The barriers of a kernel as it makes them."""
    main = next(n for n in ast.parse(text).body if getattr(n, "name", "") == kernel)
    out: dict[str, Any] = {}
    for name, ring, count in INIT.findall(ast.unparse(main)):
        arrivals = GROUPS if count == "GROUPS" else int(count)
        out[name] = Ring(arrivals) if ring else Barrier(arrivals)
    return out


def functions(text: str, kernel: str, found: dict[str, Any]) -> list[Any]:
    """The producer and the consumer of a kernel, as Python."""
    names = [f"{kernel}_load", f"{kernel}_compute"]
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            node.decorator_list = []
            for a in node.args.args:
                a.annotation = None
            exec(compile(ast.Module([node], []), kernel, "exec"), found)
    return [found[n] for n in names]


class Names(dict[str, Any]):
    """Names that are not known are helpers, whose values nobody needs."""

    def __missing__(self, name: str) -> Any:
        if name in {"print", "int", "float", "len", "bool"}:
            raise KeyError(name)
        return Value()


def played(produce: Any, consume: Any, given: dict[str, Any]) -> list[BaseException]:
    """Run the producer and all consumers side by side; what went wrong."""
    failed: list[BaseException] = []

    def argument(name: str, group: int) -> Any:
        if name.startswith("len_"):
            return 90 if name in ("len_i", "len_j") else 2
        return group if name == "GROUP" else given.get(name, Value())

    def run(fn: Any, group: int) -> None:
        names = fn.__code__.co_varnames[: fn.__code__.co_argcount]
        try:
            fn(*(argument(n, group) for n in names))
        except BaseException as e:
            failed.append(e)

    roles = [(produce, 0), *((consume, g) for g in range(GROUPS))]
    threads = [threading.Thread(target=run, args=role, daemon=True) for role in roles]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return failed


@pytest.mark.parametrize("apart", [0, 1])
@pytest.mark.parametrize("example", EXAMPLE_NAMES)
def test_nobody_waits_for_ever(example: str, apart: int) -> None:
    """Over several tiles of a program, and several turns around a sweep."""
    program = driver.load(EXAMPLES / f"{example}.attn")
    text = module_text(program, driver.CompileOptions(hopper=True))
    kernels = kernel_table(text, "HOPPER")
    assert kernels
    for kernel in kernels:
        produce, consume = functions(text, kernel, Names(surroundings()))
        given = barriers(text, kernel)
        given |= {"STAGES": STAGES, "GROUPS": GROUPS, "APART": apart, "HELD": apart}
        given |= {"programs": 6, "run": 1}
        given |= {"start": 0, "G": 2, "w": 40, "turns_ptr": Turns(6), "turn_slot": Dealt()}
        given |= dict.fromkeys(("BLOCK_I", "BLOCK_J", "E_PAD", "F_PAD", "E", "F"), 32)
        assert played(produce, consume, given) == [], kernel
