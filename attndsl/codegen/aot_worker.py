"""Compile one kernel of a generated module, in a process of its own: `python aot_worker.py job.json`.

The job names the module, the kernel, the target and its arguments; the PTX, the cubin and a summary are written beside
it. Run as a file, it imports nothing of this package, and Triton alone: a process is compiling after 0.3 seconds.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any


def load(path: str) -> Any:
    """The generated module. Its launchers use torch when they are called, which is never here: spare the import."""
    sys.modules.setdefault("torch", types.ModuleType("torch"))
    spec = importlib.util.spec_from_file_location("generated", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_job(job: dict[str, Any], out: Path) -> dict[str, Any]:
    """Compile, write `out`.ptx and `out`.cubin, and return what the compiler says of them."""
    module = load(job["module"])
    del sys.modules["torch"]

    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    target = GPUTarget("cuda", job["capability"], 32)
    triton.runtime.driver.set_active(Target(target))
    fn = getattr(module, job["kernel"])
    # Names of types come as text, as nothing else does.
    constants = {
        k: getattr(tl, v) if isinstance(v, str) else v for k, v in job["constants"].items()
    }
    make: Any = ASTSource
    signature = dict(job["signature"])
    for name, kind in signature.items():
        if kind.startswith("memory "):
            signature[name] = memory_tiles(*kind.split()[1:])
    if fn.is_gluon():
        from triton.experimental.gluon._runtime import GluonASTSource

        make = GluonASTSource
    source = make(
        fn=fn,
        signature=signature,
        constexprs={(fn.arg_names.index(k),): v for k, v in constants.items()},
        attrs={(fn.arg_names.index(k),): [["tt.divisibility", 16]] for k in job["aligned"]},
    )
    # Fused multiply-adds are asked for: the default is to change in Triton 3.10.
    options = {**job["options"], "enable_fp_fusion": True}
    cuda = toolkit()
    with cuda.sound_assembler():
        kernel = triton.compile(source, target=target, options=options)
    out.with_suffix(".ptx").write_text(kernel.asm["ptx"], encoding="utf-8")
    cubin = out.with_suffix(".cubin")
    cubin.write_bytes(kernel.asm["cubin"])
    usage = subprocess.run(
        [cuda.tool("cuobjdump"), "-res-usage", str(cubin)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {"shared": int(kernel.metadata.shared), "entry": kernel.metadata.name, "usage": usage}


class Target:
    """A driver for a GPU that is not there: helpers ask it what they are compiled for."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def get_current_target(self) -> Any:
        return self.target


def memory_tiles(dtype: str, *box: str) -> str:
    """The type of an argument by which the copy engine finds tiles."""
    from triton.experimental.gluon import language as gl

    sides = [int(n) for n in box]
    elements = {"bf16": gl.bfloat16, "fp16": gl.float16, "fp32": gl.float32}
    elements["fp8e4nv"] = gl.float8e4nv
    layout = gl.NVMMASharedLayout.get_default_for(sides, elements[dtype])
    return f"tensordesc<{dtype}{sides},{layout!r}>"


def toolkit() -> Any:
    """The module beside this file; importing it by its name would import the package."""
    path = Path(__file__).with_name("toolkit.py")
    spec = importlib.util.spec_from_file_location("toolkit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    job_path = Path(sys.argv[1])
    job = json.loads(job_path.read_text(encoding="utf-8"))
    result = compile_job(job, job_path.with_suffix(""))
    job_path.with_suffix(".out").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
