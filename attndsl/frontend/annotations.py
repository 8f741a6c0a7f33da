"""`Tensor["b,h,i,e"]`: how the inputs and outputs of an `@attention_spec` function are declared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorAnnotation:
    """What `Tensor[…]` gives: the axes as they were written, and the kind of the elements."""

    axes: str
    dtype: type = float

    def __repr__(self) -> str:
        kind = "" if self.dtype is float else f", {self.dtype.__name__}"
        return f'Tensor["{self.axes}"{kind}]'


class Tensor:
    """A tensor in the signature of an `@attention_spec` function.

        @attention_spec
        def causal(Q: Tensor["b,h,i,e"], K: Tensor["b,h,j,e"], doc: Tensor["b,j", int]) -> Tensor["b,h,i,j"]: ...

    The axes are those of a declaration in an `.attn` file, in memory order; `h//G` is an axis of grouped heads.
    """

    def __class_getitem__(cls, item: str | tuple[str, type]) -> TensorAnnotation:
        axes, dtype = item if isinstance(item, tuple) else (item, float)
        if not isinstance(axes, str) or dtype not in (float, int, bool):
            raise TypeError(
                f'expected Tensor["b,h,i,e"] or Tensor["b,i", int], got Tensor[{item!r}]'
            )
        return TensorAnnotation(axes, dtype)
