"""Sweeps as written and after fusion: the literature's counts, and the planner's."""

from __future__ import annotations

from pathlib import Path

import pytest

from attndsl import driver
from attndsl.analysis.fusion import fused
from attndsl.analysis.sweeps import Sweeps, as_written
from attndsl.cascade.nodes import Solve
from attndsl.cascade.walk import walk
from attndsl.diagnostics import DiagnosticError
from attndsl.facts import inside
from attndsl.frontend.reading import read_source
from attndsl.schedule import Refused, plan_forward
from attndsl.schedule import tile as t
from attndsl.schedule.prepare import prepare
from attndsl.source import Source

EXAMPLES = Path(__file__).parents[3] / "examples"
PROGRAMS = sorted(p.stem for p in EXAMPLES.glob("*.attn"))


def program(source: Source) -> driver.Program:
    return driver.lower(source, driver.parse(source), None)


def example(name: str) -> driver.Program:
    return program(read_source(EXAMPLES / f"{name}.attn"))


def counts(p: driver.Program) -> tuple[Sweeps, Sweeps]:
    ready = prepare(p.shifted)
    return as_written(p.cascade), fused(ready.cascade, ready.ranks)


def planned(plan: t.Plan, beside: bool = True) -> int:
    """The longest chain of kernels each of which reads what the one before wrote.

    `beside` counts those without a sweep too: what is computed of each row or pair, or of each chunk before the walk.
    """
    depth: dict[str, int] = {}
    for step in plan.steps:
        if isinstance(step, t.TileProgram):
            # What adds the two halves of a sum over all positions goes over no sequence again.
            halves = step.reads and all(b.endswith((".up", ".down")) for b in step.reads)
            swept = (beside or step.sweep is not None) and not halves
            after = swept + max((depth.get(b, 0) for b in step.reads), default=0)
            depth |= dict.fromkeys(step.writes, after)
        elif isinstance(step, t.HostSum):
            depth[step.out] = depth[step.src]
    return max(depth.values())


@pytest.mark.parametrize(
    ("name", "count"), [("softmax_three_sweeps", 3), ("two_sweeps", 2), ("running_softmax", 1)]
)
def test_the_cascades_of_fusemax(name: str, count: int) -> None:
    written, after = counts(example(name))
    assert len(written) == count
    assert len(after) == after.bound == 1
    assert dict(after.reads) == {"Q": (1,), "K": (1,), "V": (1,)}
    assert written.reads["K"] == tuple(range(1, count + 1))
    assert written.reads["V"] == (count,)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_planner_makes_as_many(name: str) -> None:
    p = example(name)
    try:
        plan_forward(p.shifted)
        plan = driver.schedule(p).forward
    except (Refused, DiagnosticError):
        return  # or it has a schedule under another reading of its ranks, with sweeps of its own
    if any(isinstance(n, Solve) for d in p.cascade.body for n in walk(d.expr)):
        return  # a kernel searches as long as it takes
    assert plan is not None
    ready = prepare(p.shifted)
    after = fused(ready.cascade, ready.ranks, inside(driver.schedule(p), ready.cascade))
    # A system that a recurrence solves may take a kernel for each of two right sides.
    more = any(d.init is not None for d in p.cascade.body)
    assert len(after) <= planned(plan)
    assert planned(plan, beside=False) <= len(after) + more
    assert (after.bound or 0) <= len(after)


def test_what_is_read_when() -> None:
    written, after = counts(example("standardised"))
    assert written.tensors == (("mean",), ("var",), ("M_T",), ("Z_T",), ("O",))
    spread = ("mean.1", "var.2.count", "var.2.spread")
    assert after.tensors == (spread, ("M_T", "Z_T", "O.3"))
    assert dict(after.reads) == {"Q": (1, 2), "K": (1, 2), "V": (2,)}
    assert after.bound == 2
    assert after.facts[0] == "`mean` must be known before `max` of `M_T`"
    assert after.joined[0] == (
        "`var.2.spread` runs along with `var.2.centre`: it is the spread around this mean, and moves with its square"
    )


def test_a_root_takes_a_sweep_for_each_step() -> None:
    written, after = counts(example("entmax"))
    assert len(written) == len(after) == 14
    assert written.tensors[1:13] == (("t",),) * 12
    assert after.reads["V"] == (14,)
    fact = "`t` must be known before `relu(S[i,j] - t[i])`, which is not separable in `t`"
    assert fact in after.facts


BODY = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f], u[b,j]) -> O[b,i,f]{} {{
  batch b
  S[i,j] = Q[i,e] * K[j,e]
  {}
}}"""


@pytest.mark.parametrize(
    ("text", "written", "after"),
    [
        (("", "O[i,f] = S[i,j] * V[j,f]"), 1, 1),
        (("", "n[i] = sqrt(sum[j](S[i,j]**2))\n  O[i,f] = S[i,j] / n[i] * V[j,f]"), 2, 1),
        (
            ("", "n[i] = sqrt(sum[j](S[i,j]**2))\n  O[i,f] = softmax[j](S[i,j] / n[i]) * V[j,f]"),
            4,
            2,
        ),
        (("", "n = sum[j](u[j])\n  O[i,f] = exp(S[i,j] * n) * V[j,f]"), 2, 2),
        ((", A[b,i,j]", "A[i,j] = softmax[j](S[i,j])\n  O[i,f] = A[i,j] * V[j,f]"), 3, 2),
    ],
)
def test_programs(text: tuple[str, str], written: int, after: int) -> None:
    p = program(Source("t.attn", BODY.format(*text)))
    assert [len(x) for x in counts(p)] == [written, after]
    plan = driver.schedule(p).forward
    assert plan is not None
    assert planned(plan) == after
