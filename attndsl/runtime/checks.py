"""What a call's tensors must be, besides their shapes: kinds, float types, one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attndsl.analysis.intervals import widths
from attndsl.callerrors import CallError
from attndsl.cascade.bind import Number, declaration
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Compare,
    DType,
    Expr,
    Read,
    Reduce,
    Reduction,
    TensorDecl,
)
from attndsl.cascade.printer import print_expr
from attndsl.cascade.walk import free, walk

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn)
EIGHT = torch.float8_e4m3fn
INTS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


def products(cascade: Cascade) -> tuple[frozenset[str], ...]:
    """The float inputs of each sum of products, `sum[e](Q[i,e] * K[j,e])` -> {Q, K}.

    A factor counts if it carries the summed index; so `V` in `sum[j](P[i,j] * V[j,f])` is a product
    of one input, and a slope beside the sum is none. A vector, `u[e]` of each head, scales what it stands with.
    """
    batch = frozenset(cascade.batch)
    floats = {t.name for t in cascade.inputs if t.dtype is DType.FLOAT}
    found: list[frozenset[str]] = []
    for d in cascade.body:
        for n in walk(d.expr):
            if isinstance(n, Reduce) and n.op is Reduction.SUM:
                factors = [x for x in _factors(n.body) if free(x) & set(n.indices)]
                if len(factors) > 1:
                    inside = {
                        r.tensor
                        for x in factors
                        if not any(isinstance(y, Reduce) for y in walk(x))
                        for r in walk(x)
                        if isinstance(r, Read)
                        and r.tensor in floats
                        and sum(not (free(x) and free(x) <= batch) for x in r.subs) > 1
                    }
                    if inside and frozenset(inside) not in found:
                        found.append(frozenset(inside))
    return tuple(found)


def check_widths(cascade: Cascade, params: Mapping[str, Number]) -> None:
    """Raise `CallError` A0504 for a block of a negative number of positions: kernels skip tiles by whole blocks."""
    for d in cascade.body:
        for root in (d.expr, d.where, d.init):
            for n in walk(root) if root is not None else ():
                for name in sorted(widths(n)) if isinstance(n, Compare) else ():
                    if params.get(name, 0) < 0:
                        raise CallError(
                            "A0504",
                            f"{cascade.name}: parameter `{name}` is {params[name]}, and positions are divided by it",
                            notes=(f"`{print_expr(n)}`",),
                            help="pass a number of positions; `op.reference(...)` divides by negative ones too",
                        )


def _factors(e: Expr) -> list[Expr]:
    match e:
        case Binary(op="*"):
            return [*_factors(e.left), *_factors(e.right)]
        case Binary(op="/"):
            return _factors(e.left)
        case _:
            return [e]


def check_eight(name: str, device: torch.device, wrt: str, stateful: bool) -> None:
    """Raise `CallError` A0515 where inputs of 8 bits cannot be taken."""
    why, help = "", "cast them: `x.to(torch.bfloat16)` is exact, and scales stay as they are"
    if wrt:
        why = (
            f"a gradient is asked for ({wrt.replace(',', ', ')}), and they have a forward pass only"
        )
        help = f"call it under `torch.no_grad()`, or {help}"
    elif stateful:
        why = "a state is asked for"
    elif device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        major, minor = torch.cuda.get_device_capability(device)
        why = f"this GPU has none of them (sm_{major}{minor}; they begin with sm_89)"
    if why:
        raise CallError("A0515", f"{name}: inputs of {EIGHT}: {why}", help=help)


class TensorCheck:
    """The checks of one program, prepared."""

    def __init__(self, cascade: Cascade, apart: frozenset[str] = frozenset()) -> None:
        """`apart` are inputs that may have a type of their own in any product: states."""
        self.cascade = cascade
        self.products = tuple(p - apart for p in products(cascade))

    def __call__(self, tensors: Sequence[Tensor]) -> None:
        """Raise `CallError` A0501 if a tensor is not what is declared."""
        decls = self.cascade.inputs
        for t, x in zip(decls, tensors, strict=True):
            if not isinstance(x, Tensor):
                raise self.error(t, f"`{t.name}` is no tensor", type(x).__name__)
            check_dense(self.cascade, t, x)
            allowed = {DType.FLOAT: FLOATS, DType.INT: INTS, DType.BOOL: (torch.bool,)}[t.dtype]
            if x.dtype not in allowed:
                names = ", ".join(str(a).removeprefix("torch.") for a in allowed)
                raise self.error(
                    t,
                    f"`{t.name}` is declared `{t.dtype.value}`, and {x.dtype} came",
                    str(x.dtype),
                    f"one of {names}",
                )
        by_name = {t.name: x for t, x in zip(decls, tensors, strict=True)}
        self.devices(by_name)
        self.floats(by_name)

    def devices(self, tensors: dict[str, Tensor]) -> None:
        seen: dict[torch.device, str] = {}
        for name, x in tensors.items():
            seen.setdefault(x.device, name)
        if len(seen) > 1:
            where = ", ".join(f"`{n}` on {d}" for d, n in seen.items())
            raise CallError(
                "A0501",
                f"{self.cascade.name}: the tensors are on different devices: {where}",
                help="move them to one device",
            )

    def floats(self, tensors: dict[str, Tensor]) -> None:
        for names in self.products:
            kinds = {tensors[n].dtype for n in names}
            if len(kinds) > 1:
                came = ", ".join(f"{n}: {tensors[n].dtype}" for n in sorted(names))
                raise CallError(
                    "A0501",
                    f"{self.cascade.name}: inputs of one product have different types",
                    notes=(f"came:     {came}",),
                    help="cast them to one type",
                )
        wide = [t for t in self.cascade.inputs if tensors[t.name].dtype is torch.float64]
        for t in self.cascade.inputs if wide else ():
            if t.dtype is DType.FLOAT and tensors[t.name].dtype is not torch.float64:
                raise CallError(
                    "A0501",
                    f"{self.cascade.name}: `{wide[0].name}` is torch.float64, and `{t.name}` is"
                    f" {tensors[t.name].dtype}",
                    help="float64 is for all float inputs or none",
                )

    def error(self, t: TensorDecl, title: str, came: str, help: str = "") -> CallError:
        return refusal(self.cascade, t, title, came, help)


def check_dense(cascade: Cascade, t: TensorDecl, x: Tensor) -> None:
    """Raise `CallError` A0501 for a tensor without strides, which PyTorch's dispatcher would not take."""
    if x.is_nested:
        raise refusal(cascade, t, f"`{t.name}` is nested", "a nested tensor", "pass a dense tensor")
    if x.layout is not torch.strided:
        raise refusal(
            cascade, t, f"`{t.name}` is sparse", str(x.layout), f"pass `{t.name}.to_dense()`"
        )


def refusal(cascade: Cascade, t: TensorDecl, title: str, came: str, help: str = "") -> CallError:
    """A `CallError` A0501 about one tensor."""
    return CallError(
        "A0501",
        f"{cascade.name}: {title}",
        notes=(f"declared: {declaration(t)}", f"came:     {came}"),
        help=help,
    )
