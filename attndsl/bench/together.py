"""Kernels that Triton's autotuner chooses among, compiled side by side.

    with together():
        peer()             # its first call

The autotuner compiles each configuration when it is about to time it, one after the other: a peer with seven kernels of
a dozen configurations each takes minutes so, and as many seconds where there are processors enough. What it chooses is
the same: only the compiling comes before, by threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from attndsl.processors import processors


@contextmanager
def together() -> Iterator[None]:
    """Without Triton, or with one that cannot compile so, as it would be otherwise."""
    try:
        from triton.runtime._async_compile import AsyncCompileMode
        from triton.runtime.autotuner import Autotuner
    except ImportError:
        yield
        return
    plain = Autotuner.prune_configs

    def pruned(self: Any, kwargs: dict[str, Any]) -> Any:
        configs = plain(self, kwargs)
        if len(configs) > 1:
            # One that cannot be compiled is the autotuner's to find, when its turn has come.
            with (
                suppress(Exception),
                ThreadPoolExecutor(processors()) as pool,
                AsyncCompileMode(pool, ignore_errors=True),
            ):
                for c in configs:
                    with suppress(Exception):
                        said = {**kwargs, **c.all_kwargs(), "warmup": True}
                        self.fn.run(*self.nargs.values(), **said)
        return configs

    Autotuner.prune_configs = pruned
    try:
        yield
    finally:
        Autotuner.prune_configs = plain
