"""Random programs of the softmax family: score terms, domains, normalizers, outputs, batches."""

from __future__ import annotations

import re

from hypothesis import strategies as st

# Every input a program may read; `*` stands for some of the batch indices, `+` for those of keys.
DECLARED = {
    "Q": "*i,e", "K": "+j,e", "V": "+j,f", "P": "*i,d", "R": "+j,d", "Y": "+j,g", "T": "*x", "W": "*x,e",
    "B": "*i,j", "u": "*i", "w": "*j", "s": "*", "t": "*", "U": "*i,r", "X": "*j,r",
    "gate": "*i,f", "D": "*i,j", "C": "*n",
    "doc": "*n: int", "pos": "*n: int", "lo": "*i: int", "keep": "*j: bool", "mask": "*i,j: bool",
    "row": "*i: bool", "at": "*i,j: int", "tab": "*y", "width": "*: int", "kind": "*n: int", "emb": "*y,e",
}  # fmt: skip

TERMS = (
    "Q[i,e]*K[j,e] / sqrt(|e|)",
    "u[i] * (Q[i,e]*K[j,e])",
    "w[j] * (Q[i,e]*K[j,e]) * sigmoid(s)",
    "P[i,d]*R[j,d]",
    "tanh(P[i,d]*R[j,d])",
    "Q[i,e]*W[i - j + |i| - 1, e]",
    "K[j,e]*W[i - j + |i| - 1, e]",
    "Q[i,e]*emb[kind[j], e]",
    "T[i - j + |i| - 1]",
    "tab[at[i,j]]",
    "tab[min(abs(i - j), 3)]",
    "B[i,j]",
    "U[i,r]*X[j,r]",
    "s * (i - j)",
    "-softplus(s) * abs(i - j)",
    "-sum[e]((Q[i,e] - K[j,e])**2) / 4",
    "t * cos((i - j) / 2)",
    "C[i] - C[j]",
    "u[i] + w[j]",
    "tanh(u[i] * w[j])",
    "(u[i] if doc[i] == doc[j] else w[j])",
    "log(i + 2) * (Q[i,e]*K[j,e])",
)
MAPS = (
    "{}",
    "{}",
    "{}",
    "3 * tanh(({}) / 3)",
    "-abs({})",
    "min({}, 1.5)",
    "sigmoid(t) * ({})",
    "softplus({})",
)
ATOMS = (
    "j <= i", "j < i", "j > i - 3", "i - j < 4", "abs(i - j) <= 2", "j < 3", "j >= |j| - 2", "i >= 2",
    "doc[i] == doc[j]", "doc[j] <= doc[i]", "(i - j) % 3 == 0", "i // 4 == j // 4", "j // 3 <= i // 3",
    "keep[j]", "mask[i,j]", "pos[j] <= pos[i]", "0 <= pos[i] - pos[j] < 2", "j != i", "i % 2 == j % 2",
    "lo[i] <= j", "j < i + width", "row[i]", "-2 < i - j < 5", "kind[i] != kind[j]",
)  # fmt: skip
NORMALIZERS = (
    "A[i,j] = softmax[j](S[i,j])",
    "A[i,j] = softmax[j](S[i,j])",
    "M[i] = max[j](S[i,j])\nE[i,j] = exp(S[i,j] - M[i])\nA[i,j] = E[i,j] / sum[j](E[i,j])",
    "M[i] = max(s, max[j](S[i,j]))\nE[i,j] = exp(S[i,j] - M[i])\nA[i,j] = E[i,j] / (exp(s - M[i]) + sum[j](E[i,j]))",
    "A[i,j] = exp(S[i,j]) / (1 + sum[j](exp(S[i,j])))",
    "A[i,j] = exp(S[i,j] - logsumexp[j](S[i,j]))",
    "A[i,j] = sigmoid(S[i,j] - 1)",
    "A[i,j] = relu(S[i,j])**2 / |j|",
    "E[i,j] = softplus(S[i,j])\nA[i,j] = E[i,j] / sum[j](E[i,j])",
    "A[i,j] = S[i,j] / (sum[j](abs(S[i,j])) + 0.5)",
    "A[i,j] = S[i,j] * rsqrt(sum[j](S[i,j]**2) + 0.5)",
    "M[i] = max[j](S[i,j])\nE[i,j] = exp(S[i,j] - M[i]) - exp(-M[i])\n"
    "A[i,j] = relu(E[i,j]) / (sum[j](abs(E[i,j])) + 0.5)",
    "A[i,j] = softmax[j](S[i,j]) * sigmoid(w[j])",
    "A[i,j] = softmax[j](S[i,j]) * D[i,j]",
    "A[i,j] = softmax[j](S[i,j]) - sigmoid(s) * softmax[j](S2[i,j])",
    "A[i,j] = softmax[j](S[i,j]) * softmax[j](S2[i,j])",
    "N[i,j] = softmax[j](S[i,j])\nA[i,j] = N[i,j]**2",
    "N[i,j] = softmax[i](S[i,j])\nA[i,j] = N[i,j] / (sum[j](N[i,j]) + 0.5)",
    "A[i,j] = 1.5**S[i,j] / |j|",
)
OUTPUTS = {
    "O[i,f]": "O[i,f] = A[i,j] * V[j,f]",
    "O1[i,f]": "O1[i,f] = A[i,j] * V[j,f] * gate[i,f]",
    "O2[i,f]": "N2[i,f] = A[i,j] * V[j,f]\nO2[i,f] = N2[i,f] * sigmoid(gate[i,f]) + gate[i,f]",
    "O3[i,g]": "O3[i,g] = u[i] * (A[i,j] * Y[j,g])",
    "O4[i,f]": "O4[i,f] = A[i,j] * silu(V[j,f])",
    "L[i]": "L[i] = logsumexp[j](S[i,j])",
    "Mx[i]": "Mx[i] = max[j](S[i,j])",
    "Z[i]": "Z[i] = sum[j](A[i,j])",
    "H[i]": "H[i] = sum[j](A[i,j] * (i - j))",
    "I[i]": "I[i] = sum[j](A[i,j] * S[i,j])",
    "Cs[j]": "Cs[j] = sum[i](A[i,j])",
    "A[i,j]": "",
}  # fmt: skip


@st.composite
def conditions(draw: st.DrawFn) -> str:
    """A `where` clause, or none."""
    parts = []
    for _ in range(draw(st.integers(0, 2))):
        first, second = draw(st.sampled_from(ATOMS)), draw(st.sampled_from(ATOMS))
        form = draw(
            st.sampled_from(["{0}", "{0}", "{0}", "{0} or {1}", "not ({0})", "({0}) and ({1})"])
        )
        parts.append(form.format(first, second))
    return "where " + ", ".join(parts) if parts else ""


@st.composite
def scores(draw: st.DrawFn) -> str:
    """An expression in `i` and `j`."""
    terms = draw(st.lists(st.sampled_from(TERMS), min_size=1, max_size=3, unique=True))
    # A term of rows or columns alone would leave the other index without a place.
    if not any("j" in t and "i" in t for t in terms):
        terms.append("u[i] + w[j]")
    return draw(st.sampled_from(MAPS)).format(" + ".join(terms))


@st.composite
def programs(draw: st.DrawFn) -> str:
    """A well-formed program over the batch indices b and h."""
    normalizer = draw(st.sampled_from(NORMALIZERS))
    picked = draw(st.lists(st.sampled_from(sorted(OUTPUTS)), min_size=1, max_size=3, unique=True))
    body = [f"S[i,j] = {draw(scores())}   {draw(conditions())}"]
    if "S2[" in normalizer:
        body.append(f"S2[i,j] = {draw(scores())}   {draw(conditions())}")
    if any("A[" in OUTPUTS[o] or o == "A[i,j]" for o in picked):
        body += normalizer.splitlines()
    body += [line for o in picked for line in OUTPUTS[o].splitlines()]
    text = "\n  ".join(body)
    if "S2[" in normalizer and "S2[i,j])" not in text:
        text = "\n  ".join(line for line in body if not line.startswith("S2["))
    grouped = draw(st.booleans())
    inputs = []
    for name, axes in DECLARED.items():
        if re.search(rf"(?<![A-Za-z0-9_]){name}(?![A-Za-z0-9_])", text):
            some = "b,h" if name in "QKV" else draw(st.sampled_from(["", "b", "h", "b,h"]))
            if axes[0] == "+" and grouped:
                some = some.replace("h", "h//G")
            dims, _, kind = axes[1:].partition(":")
            dims = ",".join(x for x in (some, dims) if x)
            inputs.append(f"{name}[{dims}]" + (f": {kind.strip()}" if kind else ""))
    if any("//" in x for x in inputs):
        inputs.append("G: int")
    outs = ", ".join(o.replace("[", "[b,h,") for o in picked)
    # Q carries both batch indices into every value, K gives `j` its extent.
    if "Q[" not in text or "K[" not in text:
        text = text.replace("S[i,j] = ", "S[i,j] = Q[i,e]*K[j,e] + ", 1)
        side = "h//G" if grouped else "h"
        known = " ".join(inputs)
        if "Q[b" not in known:
            inputs = ["Q[b,h,i,e]", *inputs]
        if "K[b" not in known:
            inputs.append(f"K[b,{side},j,e]")
        if grouped and "G: int" not in inputs:
            inputs.append("G: int")
    return f"attention a({', '.join(inputs)}) -> {outs} {{\n  batch b, h\n  {text}\n}}\n"
