"""The catalogue of A02xx: names, ranks, sums, domains and types."""

from __future__ import annotations

from attndsl.errors import ErrorInfo

NAMES = [
    ErrorInfo(
        "A0201",
        "a name that is taken",
        "No tensor, index, parameter or def may be called like a keyword, a function, a reduction, a type, a "
        "keyword of Python, or a name that compiled operators keep for their own arguments (`start state return_state "
        "cu_seqlens out debug`). An input or a parameter may not be called `dtype`, `first`, `device` or `backward` "
        "either: `op.reference`, `op.partial` and `op.warmup` have arguments of these names beside the program's own.",
        "exp[i,j] = Q[i,e] * K[j,e]",
        "E[i,j] = Q[i,e] * K[j,e]",
    ),
    ErrorInfo(
        "A0202",
        "declared twice",
        "Every attention, def, input, parameter, output and rank is declared once.",
        "attention f(X[i], X[j]) -> O[i] { O[i] = X[i] }",
        "attention f(X[i], Y[j]) -> O[i] { O[i] = X[i] * sum[j](Y[j]) }",
    ),
    ErrorInfo(
        "A0203",
        "a lone sum",
        "An index that occurs on the right and not on the left is summed (the Einstein rule), where two or "
        "more factors of a product carry it. If a single read, position or normalizer carries it, it is "
        "refused: this is a mistyped index more often than a wish. A sum that is meant is written "
        "`sum[x](…)`.",
        "S[i,j] = Q[i,e] * K[j,d]",
        "S[i,j] = Q[i,e] * K[j,e]",
    ),
    ErrorInfo(
        "A0204",
        "not a function here",
        "What stands before parentheses must be a function, a def, or with brackets a reduction or a "
        "normalizer; and a tensor is read with brackets. Reductions name their index: `max[j](…)`, while "
        "`max(a, b)` is the function.",
        "W[i,j] = softmx[j](S[i,j])",
        "W[i,j] = softmax[j](S[i,j])",
    ),
    ErrorInfo(
        "A0205",
        "the wrong number of indices or arguments",
        "A tensor is read with as many indices as it was declared with, the ones that `batch` names left out. "
        "A function takes the arguments it is defined with, by position.",
        "S[i,j] = Q[i] * K[j,e]",
        "S[i,j] = Q[i,e] * K[j,e]",
    ),
    ErrorInfo(
        "A0206",
        "a type or a default in the wrong place",
        "Scalar parameters may have a default, a number or `True`/`False` of their type. Tensors and outputs "
        "have none; an output takes the type of its value. An input without brackets is a scalar, and says so "
        "by its type.",
        "attention f(X[i], w: int = 0.5) -> O[i] { O[i] = X[i] * w }",
        "attention f(X[i], w: float = 0.5) -> O[i] { O[i] = X[i] * w }",
    ),
    ErrorInfo(
        "A0207",
        "not a lone index",
        "Left sides, outputs and the brackets of a reduction hold lone indices, each once. The axes of an "
        "input are lone indices too, or arithmetic over indices of other axes such as `h//G`.",
        "attention f(X[i,i]) -> O[i] { O[i] = X[i,i] }",
        "attention f(X[i,k]) -> O[i] { O[i] = X[i,i] }",
    ),
    ErrorInfo(
        "A0208",
        "an axis mixes batch indices with others",
        "`batch b, h` leaves an axis out of every read if its expression is over batch indices alone "
        "(`h//G`). An axis over both kinds could neither be left out nor be written.",
        "attention f(X[b,i], Y[b + i]) -> O[b,i] { batch b; O[i] = X[i] * Y }",
        "attention f(X[b,i], Y[b,i]) -> O[b,i] { batch b; O[i] = X[i] * Y[i] }",
    ),
    ErrorInfo(
        "A0209",
        "an unknown type",
        "There are `float`, `int` and `bool`. Widths are chosen at the call, by the tensors that come.",
        "attention f(X[i] : half) -> O[i] { O[i] = X[i] }",
        "attention f(X[i] : float) -> O[i] { O[i] = X[i] }",
    ),
    ErrorInfo(
        "A0210",
        "assigned twice",
        "Every body tensor is assigned once, and inputs keep their values: a program is a list of equations, "
        "and its order only says what is known before what. A value that grows step by step is a recurrence.",
        "S[i,j] = Q[i,e] * K[j,e]; S[i,j] = S[i,j] / 2",
        "R[i,j] = Q[i,e] * K[j,e]; S[i,j] = R[i,j] / 2",
    ),
    ErrorInfo(
        "A0211",
        "one name for two things",
        "No name is both a tensor (or a parameter) and an index: `X[w]` could then be read in two ways.",
        "attention f(X[i], i: int = 3) -> O[i] { O[i] = X[i] * i }",
        "attention f(X[i], n: int = 3) -> O[i] { O[i] = X[i] * n }",
    ),
    ErrorInfo(
        "A0212",
        "an unknown name",
        "Nothing with this name is declared, assigned before, or bound around it.",
        "S[i,j] = Q[i,e] * K[j,e] * scale",
        "S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|)",
    ),
    ErrorInfo(
        "A0213",
        "read before it is assigned",
        "Statements stand in the order in which they are computed. A tensor that needs its own earlier values "
        "is a recurrence and reads them one step back: `H[t-1]`. Parts of its step may stand above it, under names of "
        "their own; a sum over all of its earlier points (`sum[s : s < t](A[t,s] * U[s])`, a system of equations) is "
        "none.",
        "M[i] = max[j](S[i,j]); S[i,j] = Q[i,e] * K[j,e]",
        "S[i,j] = Q[i,e] * K[j,e]; M[i] = max[j](S[i,j])",
    ),
    ErrorInfo(
        "A0214",
        "a def that uses itself",
        "A def is a name for an expression, and is replaced by it. One that uses itself would be replaced for "
        "ever.",
        """def f(x) = f(x) + 1
attention a(X[i]) -> O[i] { O[i] = f(X[i]) }""",
        """def f(x) = x + 1
attention a(X[i]) -> O[i] { O[i] = f(X[i]) }""",
    ),
    ErrorInfo(
        "A0215",
        "an expression where a def needs a name",
        "A def that reads its parameter with brackets (`x[l]`), or takes an extent of it (`|x|`), must be "
        "given a name.",
        """def total(x) = sum[l](x[l])
attention a(X[i]) -> O[i] { O[i] = X[i] / total(2 * X[i]) }""",
        """def total(x) = sum[l](x[l])
attention a(X[i]) -> O[i] { O[i] = X[i] / total(X) }""",
    ),
    ErrorInfo(
        "A0216",
        "a batch index in the body",
        "`batch b, h` leaves these indices out of the whole body: every tensor is read at the same `b` and "
        "`h`. A program that mixes heads, or uses a head's number, leaves `h` out of `batch` and writes it "
        "everywhere.",
        "S[i,j] = Q[i,e] * K[j,e] / (h + 1)",
        "S[i,j] = Q[i,e] * K[j,e]",
    ),
    ErrorInfo(
        "A0217",
        "a filter in a read",
        "A filter restricts a reduction (`sum[l : l <= j](…)`) or, on a left side, the domain of a tensor.",
        "O[i,f] = S[i, j : j <= i] * V[j,f]",
        "O[i,f] = sum[j : j <= i](S[i,j] * V[j,f])",
    ),
    ErrorInfo(
        "A0218",
        "an extent that is not known",
        "A new index has the extent of a subscript that it stands in alone. One that stands in no such "
        "subscript needs `rank l = …`.",
        "N[i] = Q[i,0] * sum[l : l <= i](1)",
        "rank l = |i|; N[i] = Q[i,0] * sum[l : l <= i](1)",
    ),
    ErrorInfo(
        "A0219",
        "a normalizer over an index that is not there",
        "`softmax[j](S)` keeps `j`: its argument carries `j`, and so does its value, which is then kept on "
        "the left or summed in a product.",
        "W[i,j] = softmax[j](Q[i,0])",
        "W[i,j] = softmax[j](Q[i,0] * K[j,0])",
    ),
    ErrorInfo(
        "A0220",
        "a sum inside a divisor",
        "The Einstein rule sums products. An index that only a divisor carries would be summed inside the "
        "divisor, which nobody reads that way: write the sum.",
        "A[i,f] = Q[i,e] * K[i,e] / V[j,f]",
        "A[i,f] = Q[i,e] * K[i,e] / sum[j](V[j,f])",
    ),
    ErrorInfo(
        "A0221",
        "a sum without a place",
        "The Einstein rule goes from the outside in, and into one argument of a function. If two arguments "
        "carry the index, or a condition does, it cannot say where the sum belongs.",
        "A[i] = max(Q[i,e], K[i,e])",
        "A[i] = sum[e](max(Q[i,e], K[i,e]))",
    ),
    ErrorInfo(
        "A0230",
        "a condition on a foreign index",
        "`where` says where the tensor on the left is defined, so it may name its indices alone. A condition "
        "on a summed index belongs on the tensor that is summed, or in a filter.",
        "S[i,j] = Q[i,e] * K[j,e]; O[i,f] = S[i,j] * V[j,f] where j <= i",
        "S[i,j] = Q[i,e] * K[j,e] where j <= i; O[i,f] = S[i,j] * V[j,f]",
    ),
    ErrorInfo(
        "A0231",
        "an extent that depends on data",
        "The extent of a rank is integer arithmetic over extents and parameters, known before anything is "
        "computed.",
        "rank n = doc[0]; A[n] = sum[m : m <= n](doc[m])",
        "rank n = |t| // 2; A[n] = sum[m : m <= n](doc[m])",
    ),
    ErrorInfo(
        "A0232",
        "an assumption about a body tensor",
        "`assume` states facts about inputs and parameters, which the compiler cannot know. What follows from "
        "them for body tensors is derived, and need not be said.",
        "assume S[i,j] >= 0; S[i,j] = Q[i,e] * K[j,e]",
        "assume Q >= 0, K >= 0; S[i,j] = Q[i,e] * K[j,e]",
    ),
    ErrorInfo(
        "A0233",
        "a domain that is always empty",
        "An expression is defined where everything it reads is defined, sums included: `A + B` over a lower "
        "and an upper triangle is defined nowhere. Choose with `a if c else b`, of which only the chosen "
        "branch must be defined.",
        """A[i,j] = Q[i,e] * K[j,e] where j <= i
B[i,j] = Q[i,e] * K[j,e] where j > i
O[i,f] = (A[i,j] + B[i,j]) * V[j,f]""",
        """A[i,j] = Q[i,e] * K[j,e] where j <= i
B[i,j] = Q[i,e] * K[j,e] where j > i
O[i,f] = (A[i,j] if j <= i else B[i,j]) * V[j,f]""",
    ),
    ErrorInfo(
        "A0240",
        "a malformed solve",
        "`solve[x : lo <= x <= hi](left == right, iters=12)`: an unknown with its two bounds, one equation "
        "that names it, and at most a cap on the kernel's steps.",
        "X[i] = solve[x](sum[e](relu(Q[i,e] - x)) == 1)",
        "X[i] = solve[x : -9 <= x <= 9](sum[e](relu(Q[i,e] - x)) == 1, iters=12)",
    ),
    ErrorInfo(
        "A0241",
        "a normalizer that depends on what is not known yet",
        "A normalizer is written out as tensors of its own, computed once and before the statement. So it "
        "may depend neither on the unknown of a `solve` around it, nor on the tensor that is being assigned.",
        "X[i] = solve[x : 0 <= x <= 1](sum[e](softmax[e](x * Q[i,e]) * K[i,e]) == 1)",
        "W[i,e] = softmax[e](Q[i,e]); X[i] = solve[x : 0 <= x <= 1](sum[e](x * W[i,e] * K[i,e]) == 1)",
    ),
    ErrorInfo(
        "A0242",
        "a recurrence without a start",
        "A tensor that reads itself at `t-1` has nothing to read at the first point: `init` gives it.",
        "H[t,e] = g[t] * H[t-1,e] + Q[t,e]",
        "H[t,e] = g[t] * H[t-1,e] + Q[t,e]   init 0",
    ),
    ErrorInfo(
        "A0243",
        "a recurrence that steps otherwise",
        "A recurrence runs over one index, one way, one step at a time: `t-1` forward or `t+1` backward. A "
        "longer memory is a wider state: carry what is needed in a tensor of its own.",
        "H[t] = g[t] * H[t-2]   init 0",
        "H[t] = g[t] * H[t-1]   init 0",
    ),
    ErrorInfo(
        "A0244",
        "a start without a recurrence",
        "`init` is where a recurrence starts. A tensor that does not read its own past has no use for it.",
        "H[t] = g[t] * 2   init 0",
        "H[t] = g[t] * 2",
    ),
    ErrorInfo(
        "A0245",
        "a start that depends on the time",
        "The start of a recurrence over `t` is one state, before the first point: it may carry every index "
        "but `t`.",
        "H[t] = g[t] * H[t-1]   init g[t]",
        "H[t] = g[t] * H[t-1]   init g[0]",
    ),
    ErrorInfo(
        "A0246",
        "a recurrence that is cut",
        "A recurrence over `t` reads every step from the one before. If a condition on `t` left a step undefined, "
        "every later one would be undefined too; a step that is to be left out keeps the state instead.",
        "H[t] = g[t] * H[t-1]   where t > 3   init 0",
        "H[t] = g[t] * H[t-1] if t > 3 else H[t-1]   init 0",
    ),
    ErrorInfo(
        "A0250",
        "a number and a condition confused",
        "Conditions (`bool`) and numbers do not mix: arithmetic takes numbers, `and or not`, `where`, filters "
        "and `if` take conditions. `1 if c else 0` makes a number of a condition, a comparison the reverse.",
        "N[i,e] = Q[i,e] * (i > 0)",
        "N[i,e] = Q[i,e] * (1 if i > 0 else 0)",
    ),
    ErrorInfo(
        "A0251",
        "an integer is needed",
        "Subscripts and extents are integers: positions, extents, `: int` inputs and parameters, and `+ - * "
        "// %` over them. `/` gives a float, `//` divides and rounds down.",
        "A[i] = Q[i, |e| / 2]",
        "A[i] = Q[i, |e| // 2]",
    ),
    ErrorInfo(
        "A0260",
        "an output that is never assigned",
        "Every declared output is a body tensor of the same name.",
        "attention f(X[i]) -> O[i] { P[i] = X[i] }",
        "attention f(X[i]) -> O[i] { O[i] = X[i] }",
    ),
    ErrorInfo(
        "A0261",
        "an output with other indices than declared",
        "The header gives an output's axes in memory order, batch indices included; the body assigns it with "
        "the same indices, batch indices left out.",
        "attention f(X[i,e]) -> O[i] { O[i,e] = 2 * X[i,e] }",
        "attention f(X[i,e]) -> O[i,e] { O[i,e] = 2 * X[i,e] }",
    ),
    ErrorInfo(
        "A0262",
        "an output that lacks a batch index",
        "A body tensor carries the batch indices of everything it reads. An output must declare them all: "
        "nothing is summed over a batch silently.",
        "attention f(X[b,i]) -> O[i] { batch b; O[i] = X[i] }",
        "attention f(X[b,i]) -> O[b,i] { batch b; O[i] = X[i] }",
    ),
    ErrorInfo(
        "A0263",
        "a body tensor that is never used",
        "A tensor that no statement reads, and that is no output, is a mistake more often than a plan.",
        "attention f(X[i]) -> O[i] { Y[i] = 2 * X[i]; O[i] = X[i] }",
        "attention f(X[i]) -> O[i] { Y[i] = 2 * X[i]; O[i] = Y[i] }",
    ),
    ErrorInfo(
        "A0264",
        "an input that is never used (a warning)",
        "The input or parameter is declared and never read. The program compiles; the caller must still pass "
        "it.",
        "attention f(X[i], Y[i]) -> O[i] { O[i] = X[i] }",
        "attention f(X[i]) -> O[i] { O[i] = X[i] }",
    ),
    ErrorInfo(
        "A0265",
        "a program without an attention",
        "A file holds one or more attentions. Defs alone have nothing to be used by.",
        "def twice(x) = 2 * x",
        """def twice(x) = 2 * x
attention f(X[i]) -> O[i] { O[i] = twice(X[i]) }""",
    ),
    ErrorInfo(
        "A0266",
        "which attention is meant",
        "A file may hold several attentions. `load(path, name=…)` and `attndsl compile --name …` pick one; the name "
        "may be left out only if there is one.",
    ),
    ErrorInfo(
        "A0267",
        "a condition that a sum drops (a warning)",
        "An expression is defined where everything it reads is, but for reductions: over no points they are 0 (or "
        "-inf, 1, …), and defined. Here a reduction reads a tensor that has a condition on kept indices alone, so that "
        "its value is 0 where the condition fails, and nothing else restricts what is defined by it: a causal mask "
        "is lost.",
        "attention f(X[i,j], w[m]) -> O[i] {\n"
        "  D[i,j] = sqrt(i - j)   where j <= i\n"
        "  S[i,j] = X[i,j] + sum[m](w[m] * tanh(D[i,j] + m))\n"
        "  O[i]   = sum[j](exp(S[i,j]))\n"
        "}",
        "attention f(X[i,j], w[m]) -> O[i] {\n"
        "  D[i,j] = sqrt(i - j)   where j <= i\n"
        "  S[i,j] = X[i,j] + sum[m](w[m] * tanh(D[i,j] + m))   where j <= i\n"
        "  O[i]   = sum[j](exp(S[i,j]))\n"
        "}",
    ),
]
