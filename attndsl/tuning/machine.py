"""What the search needs to know of a GPU; without one, by name.

MACHINES["H100"]         machine_of(torch.cuda.get_device_properties(0))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attndsl.schedule.cost import GPUS, Gpu

REGISTERS = 65536  # 32-bit, of a multiprocessor
WARPS = {80: 64, 86: 48, 89: 48, 90: 64, 100: 64, 120: 48}
# Operations of dense 16-bit products per clock and multiprocessor.
PRODUCTS = {80: 2048, 86: 1024, 89: 1024, 90: 4096, 100: 8192, 120: 1024}


@dataclass(frozen=True, slots=True)
class Machine:
    """A GPU: `shared` bytes for a block and for a multiprocessor, peaks as data sheets give them."""

    name: str
    capability: int
    multiprocessors: int
    shared_block: int
    shared_all: int
    warps: int
    clock: float
    peaks: Gpu


MACHINES = {
    "A100": Machine("A100", 80, 108, 163 << 10, 164 << 10, 64, 1.41e9, GPUS["A100"]),
    "H100": Machine("H100", 90, 132, 227 << 10, 228 << 10, 64, 1.83e9, GPUS["H100"]),
    "H200": Machine("H200", 90, 132, 227 << 10, 228 << 10, 64, 1.83e9, GPUS["H200"]),
}


def machine_of(properties: Any) -> Machine:
    """The machine that PyTorch describes; peaks by name, or worked out from clocks and widths."""
    capability = 10 * properties.major + properties.minor
    known = next((g for n, g in GPUS.items() if n in properties.name), None)
    count = properties.multi_processor_count
    clock = 1e3 * float(getattr(properties, "clock_rate", 0) or 1.7e6)
    return Machine(
        name=properties.name,
        capability=capability,
        multiprocessors=count,
        shared_block=properties.shared_memory_per_block_optin,
        shared_all=getattr(properties, "shared_memory_per_multiprocessor", 0)
        or properties.shared_memory_per_block_optin,
        warps=WARPS.get(capability, 48),
        clock=clock,
        peaks=known or _worked_out(properties, capability, count, clock),
    )


def _worked_out(properties: Any, capability: int, count: int, clock: float) -> Gpu:
    products = PRODUCTS.get(capability, 1024) * count * clock
    # Bits, twice a clock; clocks are in kHz.
    width = getattr(properties, "memory_bus_width", 0) or 256
    rate = 1e3 * float(getattr(properties, "memory_clock_rate", 0) or 8e6)
    plain = 256 * count * clock
    return Gpu(
        properties.name,
        {2: products, 4: plain, 8: plain / 2},
        2 * rate * width / 8,
        count * 16 * clock,
    )
