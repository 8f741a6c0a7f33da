"""The catalogue of A04xx: the program means something, and no schedule here computes it without N×N intermediates."""

from __future__ import annotations

from attndsl.errors import ErrorInfo

HEAD = "attention f(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {\n  batch b\n  S[i,j] = Q[i,e] * K[j,e]\n"

SCHEDULES = [
    ErrorInfo(
        "A0401",
        "a recurrence",
        "A recurrence (`H[t] = … H[t-1] … init …`) runs step by step. One that only scales its past, entry by entry "
        "and by what is never negative, is a sum over the past, and is scheduled as one; it may also add or take away "
        "products with sums of its past, such as `K[t,e] * (K[t,c] * H[t-1,c,f])` (a delta rule). A state of one "
        "feature may be an output, be read in any way and by other recurrences, and be a maximum, "
        "`max(a[t] + M[t-1], b[t])`; one of two is read linearly. Any other recurrence is walked: its state is held "
        "by a program that takes one position after the other. A state has one feature or two there, and an entry of "
        "two is made of the entry before and of sums of the past over one feature: one that is turned over has none.",
        "attention f(Q[b,t,e], K[b,t,e], V[b,t,f]) -> O[b,t,f] {\n  batch b\n"
        "  H[t,e,f] = 0.9 * H[t-1,f,e] + K[t,e] * V[t,f]   init 0\n  O[t,f] = Q[t,e] * H[t,e,f]\n}",
        "attention f(Q[b,t,e], K[b,t,e], V[b,t,f]) -> O[b,t,f] {\n  batch b\n"
        "  H[t,e,f] = 0.9 * H[t-1,e,f] + K[t,e] * V[t,f]   init 0\n  O[t,f] = Q[t,e] * H[t,e,f]\n}",
    ),
    ErrorInfo(
        "A0402",
        "a root to be found",
        "A root (`solve`, and what is made of it: `sparsemax`, `entmax15`) has a kernel that sweeps over the keys once "
        "for each step of the search. Both sides of the equation must be known after one sweep: a sum that needs "
        "another sum of the unknown first would take two.",
        HEAD + "  M[i] = max[j](S[i,j])\n"
        "  t[i] = solve[x : M[i] - 1 <= x <= M[i]](sum[j](relu(S[i,j] - x - sum[j](relu(S[i,j] - x)))) == 1)\n"
        "  O[i,f] = relu(S[i,j] - t[i]) * V[j,f]\n}",
        HEAD + "  M[i] = max[j](S[i,j])\n"
        "  t[i] = solve[x : M[i] - 1 <= x <= M[i]](sum[j](relu(S[i,j] - x)) == 1)\n"
        "  O[i,f] = relu(S[i,j] - t[i]) * V[j,f]\n}",
    ),
    ErrorInfo(
        "A0403",
        "a gradient added up over several sequences",
        "The gradient of a tensor that is read at computed positions is added up place by place. A kernel of its own "
        "walks over two sequences to find the places; a read at every triple of positions would take three.",
        "attention f(Q[b,i,e], K[b,j,e], L[b,k,e], T[m]) -> O[b,i] {\n  batch b\n"
        "  S[i,j,k] = Q[i,e] * K[j,e] * L[k,e] + T[i - j + |j|] * T[k]   where j <= i, k <= i\n"
        "  O[i] = sum[j,k](S[i,j,k])\n}",
        "attention f(Q[b,i,e], K[b,j,e], L[b,k,e], T[m]) -> O[b,i] {\n  batch b\n"
        "  S[i,j] = Q[i,e] * K[j,e] + T[i - j + |j|]   where j <= i\n"
        "  R[i] = sum[k](Q[i,e] * L[k,e])\n  O[i] = R[i] * sum[j](S[i,j])\n}",
    ),
    ErrorInfo(
        "A0404",
        "a term of too many ranks",
        "Inside a kernel a value spans at most a tile of a kept sequence, a tile of the streamed one, and one loop "
        "over a feature. A sum that is needed at every pair of positions and runs over a third one would take a "
        "matrix of its own for each pair; so would a maximum over the keys before each key. "
        "Sums along a row, over the keys before or behind each key, are carried from tile to tile; sums down a column, "
        "over the queries before or behind each query, begin anew at every block of rows, from what an earlier kernel "
        "has stored. A sum down a column of a sum along a row is neither.",
        "attention f(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {\n  batch b\n"
        "  S[i,j] = Q[i,e] * K[j,e]   where j <= i\n  M[i,j] = max[l : l <= j](S[i,l])\n"
        "  O[i,f] = sigmoid(S[i,j] - M[i,j]) * V[j,f]\n}",
        "attention f(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {\n  batch b\n"
        "  S[i,j] = Q[i,e] * K[j,e]   where j <= i\n  M[i] = max[j](S[i,j])\n"
        "  O[i,f] = sigmoid(S[i,j] - M[i]) * V[j,f]\n}",
    ),
    ErrorInfo(
        "A0405",
        "kernels in a circle",
        "Every reduction that cannot join a sweep is computed by a kernel before it. Here such a kernel would need "
        "what it comes before.",
    ),
    ErrorInfo(
        "A0406",
        "a result over three sequences",
        "A kernel writes one tile of a result, over one sequence or two. A result that keeps three positions of one "
        "sequence has no kernel, and no intermediate over two sequences is kept in memory.",
        "attention f(X[b,n,e]) -> O[b,i,j,k] {\n  batch b\n"
        "  O[i,j,k] = X[i,e] * X[j,e] * X[k,e]   where k <= j <= i\n}",
        "attention f(X[b,n,e]) -> O[b,i,j] {\n  batch b\n"
        "  O[i,j] = X[i,e] * X[j,e]   where j <= i\n}",
    ),
    ErrorInfo(
        "A0407",
        "a sum over a sequence inside an expression",
        "A reduction over a sequence is a sweep, and its result a tensor. Inside a larger expression that the sweep "
        "is a part of, it has no place; a definition of its own gives it one.",
    ),
    ErrorInfo(
        "A0408",
        "the gradient of a table with several features",
        "The gradient of a tensor that is read at computed positions is added up entry by entry. Entries are "
        "numbers or vectors here, no matrices. Without that gradient (`requires_grad=False`, `--no-backward`) the "
        "program has kernels.",
    ),
]
