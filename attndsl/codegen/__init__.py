"""Source text from tile programs, and machine code from source text.

triton, eager    a plan as a module: Triton kernels with their launchers; a function of plain PyTorch
kernel           one portable kernel, with `kernel_names`, `_lines`, `_addresses`, `_memory`, `_products`, `_loops`
eager_kernel     one kernel in PyTorch, with `eager_names`, `_values`, `_memory`, `_sums`, `_loops`
gluon            one kernel for Hopper whose warps specialise, from the same statements (`gluon_kernel`)
exprs            pointwise expressions inside statements; `eager_exprs` in PyTorch
arguments        what kernels take; `launches` and `launchers` are the calls with it
configs          default tile sizes, from the facts that `kernel_facts` finds
helpers          functions that kernels call, from `templates/triton/helpers.py`
aot, sass        machine code ahead of time, and what it looks like
"""
