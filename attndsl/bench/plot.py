"""Rates against length, with the machine's limits: a picture of the rows of a comparison. It needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attndsl.bench.run import OURS, Row
from attndsl.schedule.cost import GPUS, Gpu
from attndsl.tuning.problem import BYTES


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def length(row: Row) -> int:
    """The longest extent: of the sequence, or of the cache."""
    return max(row.shape.values())


def bandwidth_bound(row: Row, gpu: Gpu) -> bool:
    """Whether the bytes of a call take the GPU longer than its products."""
    if row.tflops is None or row.tb_s is None:
        return False
    return row.tb_s / (gpu.bandwidth * 1e-12) > row.tflops / (gpu.flops[BYTES[row.dtype]] * 1e-12)


def roofline(row: Row, gpu: Gpu, memory: bool) -> float:
    """The rate that the GPU could reach at this size, in TB/s or TFLOP/s: its products or its memory bound it.

    Both rates of a row are of one time, so that their ratio is the operations for each byte, whoever was measured.
    """
    assert row.tflops is not None
    assert row.tb_s is not None
    peak, bandwidth = gpu.flops[BYTES[row.dtype]] * 1e-12, gpu.bandwidth * 1e-12
    if memory:
        return min(bandwidth, peak * row.tb_s / row.tflops) if row.tflops else bandwidth
    return min(peak, bandwidth * row.tflops / row.tb_s) if row.tb_s else peak


def gpu_of(card: str) -> Gpu | None:
    """The data sheet of a card, by its name."""
    return next((g for n, g in GPUS.items() if n in card), None)


def plot(rows: Sequence[Row], card: str, path: Path) -> None:
    """Write the picture; the format is the path's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    gpu = gpu_of(card)
    measured = [r for r in rows if r.tflops is not None]
    memory = gpu is not None and bool(measured) and all(bandwidth_bound(r, gpu) for r in measured)
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for who in dict.fromkeys(r.who for r in measured):
        mine = sorted((r for r in measured if r.who == who), key=length)
        rates: list[Any] = [r.tb_s if memory else r.tflops for r in mine]
        style = {"linewidth": 2.5, "zorder": 3} if who == OURS else {"linewidth": 1.2}
        axes.plot([length(r) for r in mine], rates, marker="o", label=who, **style)
    if gpu is not None and measured:
        roof = {length(r): roofline(r, gpu, memory) for r in measured}
        lengths = sorted(roof)
        dashed = {"color": "grey", "linestyle": "--", "marker": "_"}
        limit = f"{gpu.name}, roofline of the data sheet"
        axes.plot(lengths, [roof[n] for n in lengths], label=limit, **dashed)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("length")
    axes.set_ylabel("TB/s" if memory else "TFLOP/s, forward")
    axes.set_title(f"{rows[0].program}, {rows[0].dtype}, {card}")
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
