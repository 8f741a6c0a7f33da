"""The catalogue of A01xx: the text is no program."""

from __future__ import annotations

from attndsl.errors import ErrorInfo

SYNTAX = [
    ErrorInfo(
        "A0101",
        "unexpected input",
        "The text stops being a program here. The label says what could have stood in this place. When the "
        "place looks right, look just before it: an operator or a bracket may be missing there.",
        "S[i,j] = Q[i,e] K[j,e]",
        "S[i,j] = Q[i,e] * K[j,e]",
    ),
    ErrorInfo(
        "A0102",
        "the program is empty",
        "A file holds one or more attentions, and defs that they use.",
        "# nothing but a comment",
        "attention copy(V[i,f]) -> O[i,f] { O[i,f] = V[i,f] }",
    ),
    ErrorInfo(
        "A0103",
        "a reduction without parentheses",
        "A reduction is a call with its index: `max[j](…)`. The parentheses say how far it reaches; without "
        "them `sum[j] a * b` could mean either of two sums.",
        "M[i] = max[j] S[i,j]",
        "M[i] = max[j](S[i,j])",
    ),
    ErrorInfo(
        "A0104",
        "`^` for a power",
        "Expressions are Python's: a power is written `**`, and `^` has no meaning.",
        "P[i,j] = relu(S[i,j])^2",
        "P[i,j] = relu(S[i,j])**2",
    ),
    ErrorInfo(
        "A0105",
        "`=` and `==` confused",
        "`=` gives a tensor its value, once; `==` compares. Conditions (`where`, filters, `assume`, `if`) "
        "compare. There is no `+=`: nothing is ever changed.",
        "S[i,j] = Q[i,e] * K[j,e] where i // 8 = j // 8",
        "S[i,j] = Q[i,e] * K[j,e] where i // 8 == j // 8",
    ),
    ErrorInfo(
        "A0106",
        "brackets do not match",
        "A bracket is closed by another kind, by nothing, or closes nothing.",
        "S[i,j] = (Q[i,e] * K[j,e] / 2",
        "S[i,j] = (Q[i,e] * K[j,e]) / 2",
    ),
    ErrorInfo(
        "A0107",
        "nested too deeply",
        "Expressions may nest 100 levels, which no formula needs (what `+`, `-`, `and` or `or` join stands "
        "side by side, however much it is); generated text that exceeds it should give "
        "parts of the expression names of their own.",
        "S[i] = " + "(" * 120 + "1" + ")" * 120,
        "S[i] = 1",
    ),
    ErrorInfo(
        "A0108",
        "too large after expansion",
        "Defs are expanded before everything else, so a def that uses others several times grows fast. Give "
        "the parts names of their own as tensors (`T[i,j] = …`): then each is computed once.",
        """def a(x) = x * x + x * x
def b(x) = a(a(a(x)))
def c(x) = b(b(x))
attention f(X[i]) -> O[i] { O[i] = c(X[i]) }""",
        """def a(x) = x * x + x * x
attention f(X[i]) -> O[i] { A[i] = a(X[i]); O[i] = a(A[i]) }""",
    ),
    ErrorInfo(
        "A0109",
        "a character outside the language",
        "Text outside comments is names, numbers, brackets and Python's operators for numbers and conditions. "
        "Typographic signs that look alike (`−`, `×`, `≤`) are other characters.",
        "S[i,j] = Q[i,e] * K[j,e] where i > j && j > 0",
        "S[i,j] = Q[i,e] * K[j,e] where i > j and j > 0",
    ),
    ErrorInfo(
        "A0110",
        "not UTF-8 text",
        "Program files are UTF-8. The message names the first byte that is not; an editor's `save with "
        "encoding` mends it.",
    ),
    ErrorInfo(
        "A0111",
        "a malformed number",
        "Numbers are written as in Python: `4096`, `4_096`, `1e-6`, `.5`. A product needs its operator.",
        "S[i,j] = 2Q[i,e] * K[j,e]",
        "S[i,j] = 2 * Q[i,e] * K[j,e]",
    ),
    ErrorInfo(
        "A0112",
        "a keyword used as a name",
        "`attention def batch rank assume where init if else and or not` are keywords everywhere, so that no "
        "line needs its context to be read.",
        "rank[i] = sum[e](Q[i,e])",
        "rank_[i] = sum[e](Q[i,e])",
    ),
    ErrorInfo(
        "A0113",
        "`if` without `else`",
        "A choice has two values: `a if c else b`. Where a tensor is defined at all is said with `where`, and "
        "a reduction is restricted by a filter.",
        "S[i,j] = Q[i,e] * K[j,e] if j <= i",
        "S[i,j] = Q[i,e] * K[j,e] where j <= i",
    ),
    ErrorInfo(
        "A0114",
        "no program in this Python function",
        "The body of an `@attention_spec` function is the language itself, in Python's syntax: assignments to "
        "subscripted names, `batch(…)`, `rank(…)`, `assume(…)`, and one `return` at its end. It is read, "
        'never run. Inputs and outputs are declared by annotations such as `Tensor["b,h,i,e"]`.',
        """@attention_spec
def causal(Q: Tensor["b,h,i,e"], K: Tensor["b,h,j,e"]) -> Tensor["b,h,i,j"]:
    batch(b, h)
    for n in range(3):
        S[i, j] = Q[i, e] * K[j, e]
    return S""",
        """@attention_spec
def causal(Q: Tensor["b,h,i,e"], K: Tensor["b,h,j,e"]) -> Tensor["b,h,i,j"]:
    batch(b, h)
    S[i, j : j <= i] = Q[i, e] * K[j, e]
    return S""",
    ),
]
