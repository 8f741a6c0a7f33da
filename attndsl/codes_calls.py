"""The catalogue of A05xx: what came at a call does not fit what the program declares."""

from __future__ import annotations

from attndsl.errors import ErrorInfo

CALLS = [
    ErrorInfo(
        "A0501",
        "not the tensor that is declared",
        "Every input must come, under its declared name, as a tensor of its declared kind: floats of any width, "
        "`: int` tensors of integers, `: bool` tensors of truth values; all on one device. `dtype=` of "
        "`op.reference` may widen the inputs and never narrow them.",
        "attention f(X[i], n: int = 2) -> O[i] { O[i] = X[i] * n }   # op(Y=x)",
        "attention f(X[i], n: int = 2) -> O[i] { O[i] = X[i] * n }   # op(X=x)",
    ),
    ErrorInfo(
        "A0502",
        "another number of axes",
        "A tensor is declared with all of its indices, in memory order, and comes with one axis for each.",
        "attention f(X[b,i]) -> O[b,i] { O[b,i] = X[b,i] * 2 }       # op(torch.ones(8))",
        "attention f(X[b,i]) -> O[b,i] { O[b,i] = X[b,i] * 2 }       # op(torch.ones(1, 8))",
    ),
    ErrorInfo(
        "A0503",
        "extents that disagree",
        "An index has one extent throughout a program, also where two indices read the same axis (`C[i,e]` and "
        "`C[j,e]`). An axis declared `h//G` has exactly |h| / G points. Ranks that the program computes (`rank j1 = "
        "|j| // w`) must come out as numbers of at least 0.",
    ),
    ErrorInfo(
        "A0504",
        "a parameter that is missing or wrong",
        "Parameters come by keyword, with the kind they are declared with. One without a default must be given, except "
        "an int that the shapes tell (`G` of `K[b,h//G,j,e]`); one that is given must then agree with them. One that "
        "positions are divided by in a condition (`i // w == j // w`) is a number of positions, and not negative.",
    ),
    ErrorInfo(
        "A0505",
        "where the queries stand",
        "Where an index of the output and a summed index are compared (`j <= i`, `i - j`), they stand on one axis. If "
        'their extents differ at a call, the call says where the first query stands: `start="end"` if the queries '
        "are the last positions, as with a key-value cache, `start=n`, or an int tensor with one position a batch. "
        "Positions are never guessed. A recurrence cannot be shifted: it takes `state=`.",
    ),
    ErrorInfo(
        "A0506",
        "a subscript that leaves its tensor",
        "Affine subscripts (`table[i - j + |i| - 1]`) are checked at the call, over the points where they are used; "
        "subscripts that contain data (`R[dist[i,j], e]`) are checked in debug mode.",
        "attention f(X[i], T[r]) -> O[i] { O[i] = X[i] * T[2 * i] }   # 8 points of T for 8 of X",
        "attention f(X[i], T[r]) -> O[i] { O[i] = X[i] * T[2 * i] }   # 15 points of T for 8 of X",
    ),
    ErrorInfo(
        "A0507",
        "an assumption that does not hold",
        "`assume` states facts about inputs, which legality and numerics rely on. `attndsl verify` and debug mode "
        "check them.",
    ),
    ErrorInfo(
        "A0508",
        "an integer division by zero",
        "`//` and `%` of integers have no value at a divisor of 0. Guard it: `i // n if n > 0 else 0`.",
    ),
    ErrorInfo(
        "A0509",
        "machine code that cannot be made here",
        "`attndsl compile` makes PTX and cubin with Triton, for the targets asked for; no GPU is needed. It "
        "cannot where Triton is not installed. `--stop-after kernel` writes the module alone.",
    ),
    ErrorInfo(
        "A0510",
        "no tile fits",
        "A kernel holds whole head dims in shared memory and registers. Where they are so large that not even the "
        "smallest tiles fit the GPU, the kernel cannot run there; the message has the sums. Smaller head dims, or a "
        "narrower dtype, fit.",
    ),
    ErrorInfo(
        "A0511",
        "no partial results",
        "`op.partial(...)` sweeps a part of the keys into a state that combines with those of other parts. There is "
        "one where the program is a single sweep over its keys, and where nothing in it depends on the number of keys "
        "or on a key of another part.",
    ),
    ErrorInfo(
        "A0512",
        "partial results that do not belong together",
        "`op.merge(...)` and `op.finish(...)` take states that `op.partial(...)` of the same program made, for the "
        "same queries and parameters, over keys that do not overlap.",
    ),
    ErrorInfo(
        "A0513",
        "no state to take up",
        "`state=`, `return_state=True` and `op.step` need a state whose size does not grow with the sequence: that of "
        "a recurrence, or of causal sums whose weights split into what rows know and what columns know. Softmax and "
        "windows have none; nor has a program that depends on positions themselves, which every call counts anew, or "
        "one with a reduction over time beside its recurrence.",
    ),
    ErrorInfo(
        "A0514",
        "a root that is not found within its rounds",
        "`solve[x : lo <= x <= hi](equation, iters=8)` stands for the exact root, and its kernel improves a guess for "
        "at most 8 rounds. `op(…, debug=True)` asks whether more rounds would move an output by more than its "
        "rounding; then `iters` must be raised, or the bracket be narrower.",
    ),
    ErrorInfo(
        "A0515",
        "inputs of 8 bits that cannot be taken",
        "Tensors of `torch.float8_e4m3fn` have a forward pass, on GPUs from sm_89 on and on the CPU. They have no "
        "gradients, neither of themselves nor of what stands beside them, and no states (`state=`, `op.step`, "
        "`op.partial`). Converted to bfloat16, which is exact, they have all of these.",
    ),
    ErrorInfo(
        "A0520",
        "no GPU to measure on",
        "`attndsl tune` and `attndsl bench` time kernels where they are to run. What was tuned on another machine can "
        "be carried here: `attndsl tune --export FILE` there and `attndsl tune --import FILE` here, or a project's "
        "attndsl-tuning.jsonl. `op.warmup` compiles for the card that is there; `attndsl compile --tuned` for any.",
    ),
]
