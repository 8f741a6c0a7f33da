"""`CompiledAttention`: a program that is called like a function of PyTorch tensors."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attndsl.callerrors import CallError
from attndsl.cascade.bind import Number, declaration
from attndsl.cascade.interpreter import check_assumes, interpret
from attndsl.cascade.nodes import Cascade, DType
from attndsl.cascade.printer import print_cascade
from attndsl.cascade.starts import check_places
from attndsl.runtime.arguments import Arguments
from attndsl.runtime.checks import EIGHT, FLOATS, TensorCheck
from attndsl.runtime.engine import Engine, Start
from attndsl.runtime.library import Operators, Place, nobody_looks
from attndsl.runtime.packed import packed
from attndsl.runtime.partial import Partials, State
from attndsl.runtime.rounds import check_rounds
from attndsl.runtime.stages import Planner, plan_passes
from attndsl.runtime.states import StateLike, States, states_of
from attndsl.schedule.monoid import Carried

BACKENDS = ("auto", "triton", "hopper", "eager")
AUTOTUNE = ("never", "once", "always")
PRECISION = ("split", "ieee")


class CompiledAttention:
    """A compiled program.

        op = attndsl.load("examples/alibi.attn")
        o, lse = op(q, k, v, slope)                      # in declared order, or by name
        o, lse = op(Q=q, K=k, V=v, slope=slope)
        o, lse = op(q, k[:, :, :n], v[:, :, :n], slope, start="end")

    Tensors may have any strides. Every float input that requires a gradient gets one. Outputs have
    the first float input's type; row statistics (without a feature axis) are float32 or wider. One
    output comes as a tensor, several as a tuple.

    Raises: CallError if a call does not fit the program, DiagnosticError if no schedule is legal.
    """

    def __init__(
        self,
        cascade: Cascade,
        *,
        backend: str | None = None,
        planner: Planner = plan_passes,
        header: str = "",
        autotune: str = "never",
        apart: frozenset[str] = frozenset(),
        deterministic: bool = True,
        precision: str = "split",
    ) -> None:
        if precision not in PRECISION:
            raise ValueError(f"precision {precision!r} is none of {', '.join(PRECISION)}")
        if autotune not in AUTOTUNE:
            raise ValueError(f"autotune {autotune!r} is none of {', '.join(AUTOTUNE)}")
        if backend is not None and backend not in BACKENDS:
            raise ValueError(f"backend {backend!r} is none of {', '.join(BACKENDS)}")
        self.cascade = cascade
        self._engine = Engine(
            cascade, backend, planner, header, autotune, apart, deterministic, precision
        )
        self._operators = Operators(self._engine)
        self._op = self._operators.op
        self._partials = Partials(self._engine)
        self._arguments = Arguments(cascade)
        self._inputs = self._arguments.inputs
        self._defaults = self._arguments.defaults
        self._stateful: States | None = None
        self.__name__ = cascade.name
        self.__doc__ = print_cascade(cascade)

    def __repr__(self) -> str:
        inputs = ", ".join(declaration(t) for t in self.cascade.inputs)
        outputs = ", ".join(f"{o.name}[{','.join(o.indices)}]" for o in self.cascade.outputs)
        return f"<attndsl {self.cascade.name}({inputs}) -> {outputs}>"

    def __reduce__(self) -> tuple[Any, ...]:
        e = self._engine
        how = (e.backend, e.header, e.autotune, e.deterministic, e.precision)
        return _rebuilt, (self.cascade, *how)

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledAttention:
        return self  # it holds nothing that a copy of a model would want apart

    @property
    def name(self) -> str:
        """The name of the program."""
        return self.cascade.name

    # --- calling ---

    def __call__(
        self,
        /,
        *tensors: Tensor,
        start: int | str | Tensor | None = None,
        state: StateLike | None = None,
        return_state: bool = False,
        cu_seqlens: Tensor | None = None,
        out: Tensor | tuple[Tensor, ...] | None = None,
        debug: bool = False,
        **named: Any,
    ) -> Any:
        """Run the program: its outputs in declared order.

        A linear or recurrent program takes up the `state` that another call returned, and with
        `return_state` returns the one that it ends in, after its outputs. With `cu_seqlens`, the
        ends of sequences packed one after the other, each begins anew (see `runtime.packed`).

        `start` is the position of the first query where queries and keys are on one axis and differ
        in number: "end", a number, or an int tensor with one number for each batch entry. `out` is
        filled with the outputs and returned. With `debug`, `assume`s and every subscript are
        checked against the values, and whether roots are found within their `iters` (slow, dense).
        """
        plain = start is None and not named and len(tensors) == len(self._inputs)
        plain = plain and state is None and not return_state and cu_seqlens is None and not debug
        if plain and out is None and not torch.compiler.is_compiling():
            made = self._operators.again(tensors)
            if made is not None:
                return made
        if not self._inputs:
            raise CallError(
                "A0501",
                f"{self.name}: no tensor is declared, so nothing says on which device it runs",
                help="`op.reference` evaluates it",
            )
        if state is not None or return_state or cu_seqlens is not None:
            if start is not None:
                before = "a state, which stands for all that came before"
                if cu_seqlens is not None:
                    before = "`cu_seqlens`, which say where each sequence begins"
                raise CallError(
                    "A0505",
                    f"{self.name}: `start` came with {before}",
                    help="leave `start` out",
                )
            if cu_seqlens is None:
                *made, after = self._with_state(tensors, named, state)
            else:
                run = partial(self._with_state, ())
                names = dict(zip(self._inputs, tensors, strict=False)) | named
                *made, after = packed(self._states(True), run, names, cu_seqlens, state)
            made = made[0] if len(made) == 1 else tuple(made)
            made = made if out is None else self._filled(out, made)
            if not return_state:
                return made
            return (made, after) if isinstance(made, Tensor) else (*made, after)
        if named or len(tensors) != len(self._inputs):
            given, params = self._arguments.named(tensors, named)
        else:
            given, params = tensors, self._defaults
        if debug:
            self._arguments.check(given)
            self._check_values(given, params, start)
        if start is None:
            place: Place = (None, None, "")
        elif isinstance(start, Tensor):
            place = (start, None, "tensor")
        elif isinstance(start, str):
            if start != "end":
                raise CallError(
                    "A0505", f'{self.name}: `start` is {start!r}, and should be "end" or a number'
                )
            place = (None, None, "end")
        else:
            # A plain number goes through as it is: `torch.compile` may have made it symbolic.
            plain = isinstance(start, int) and not isinstance(start, bool)
            place = (None, start if plain else self._position(start), "int")
        try:
            if nobody_looks(given) and (place[0] is None or nobody_looks(place[:1])):
                made = self._operators.call(given, place, params)
            else:
                made = self._op(*given, *place, *params)
        except CallError:
            raise
        except Exception:
            self._arguments.check(
                given
            )  # what PyTorch says of a wrong argument is not about the program
            raise
        return made if out is None else self._filled(out, made)

    def step(self, /, state: StateLike | None, *tensors: Tensor, **named: Any) -> Any:
        """One token: its outputs, then the state after it.

            o, state = op.step(state, q_t, k_t, v_t)      # q_t[b,h,e], or q_t[b,h,1,e]

        Tensors may lack their axis of time; outputs then lack it too. The state of the first token
        is None, or what `return_state=True` returned for a prompt.
        """
        states = self._states()
        names = dict(zip(self._inputs, tensors, strict=False)) | named
        lacking = False
        for t in self.cascade.inputs:
            x = names.get(t.name)
            if isinstance(x, Tensor):
                names[t.name], was = states.with_time(t, x)
                lacking = lacking or was
        *made, after = self._with_state((), names, state)
        if lacking:
            made = [states.without_time(k, x) for k, x in enumerate(made)]
        return (*made, after)

    def _with_state(
        self, tensors: tuple[Tensor, ...], named: dict[str, Any], state: StateLike | None
    ) -> Any:
        states = self._states()
        names = dict(zip(self._inputs, tensors, strict=False)) | named
        if state is not None:  # what the program would start from need not come
            for n in states.made.unused - names.keys():
                names[n] = torch.empty(0)
            tensors = () if states.made.unused else tensors
            named = names if states.made.unused else named
        given, params = self._arguments.of(tensors, named)
        return states(
            dict(zip(self._inputs, given, strict=True)), state, self._arguments.given(params)
        )

    def _states(self, packs: bool = False) -> States:
        """The program with its state; made when first asked for."""
        if self._stateful is None:
            backend = self._engine.backend
            self._stateful = states_of(self.cascade, CompiledAttention, backend, packs)
        return self._stateful

    def _filled(self, out: Tensor | tuple[Tensor, ...], made: Any) -> Any:
        """`out` with the outputs in it."""
        into = (out,) if isinstance(out, Tensor) else out
        if not isinstance(into, tuple | list) or not all(isinstance(x, Tensor) for x in into):
            raise CallError(
                "A0501",
                f"{self.name}: `out` should be a tensor, or a tuple with one for each output, and"
                f" {out!r} came",
            )
        values = (made,) if isinstance(made, Tensor) else made
        if any(x.requires_grad for x in (*values, *into)):
            raise CallError(
                "A0501",
                f"{self.name}: `out` cannot be differentiated through",
                help="call it under `torch.no_grad()`",
            )
        came = [(tuple(x.shape), x.dtype) for x in into]
        want = [(tuple(x.shape), x.dtype) for x in values]
        if came != want:
            raise CallError(
                "A0501",
                f"{self.name}: `out` does not fit the outputs",
                notes=(f"outputs:  {want}", f"came:     {came}"),
            )
        for x, value in zip(into, values, strict=True):
            x.copy_(value)
        return out

    def _position(self, start: Any) -> int:
        if isinstance(start, bool) or not hasattr(start, "__index__"):
            raise CallError(
                "A0505", f'{self.name}: `start` is {start!r}, and should be "end" or a number'
            )
        return operator.index(start)

    def reference(
        self,
        /,
        *tensors: Tensor,
        start: int | str | Tensor | None = None,
        dtype: torch.dtype | None = None,
        **named: Any,
    ) -> Any:
        """The same program evaluated densely with PyTorch operations: the oracle.

        It computes in the widest type of the float inputs, or in a wider `dtype`; it holds N×N
        intermediates, and is differentiable any number of times.
        """
        given, params = self._arguments.of(tensors, named)
        TensorCheck(self.cascade)(given)
        if isinstance(start, Tensor):
            check_places(self.name, start)
        # Of 8 bits they are inputs, not what is computed in.
        own = [torch.float32 if x.dtype is EIGHT else x.dtype for x in given if x.dtype in FLOATS]
        wide = own[0] if own else torch.float32
        for d in own:
            wide = torch.promote_types(wide, d)
        if dtype is not None and torch.promote_types(wide, dtype) != dtype:
            raise CallError(
                "A0501", f"{self.name}: the reference in {dtype} would be narrower than {wide}"
            )
        made = interpret(
            self.cascade,
            dict(zip(self._inputs, given, strict=True)),
            self._arguments.given(params),
            start=start,
            dtype=dtype or wide,
        )
        out = tuple(made[o.name] for o in self.cascade.outputs)
        return out[0] if len(out) == 1 else out

    def warmup(
        self,
        *shapes: Mapping[str, Sequence[int]],
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str = "cuda",
        backward: bool = False,
        start: int | str | None = None,
        **params: Number,
    ) -> None:
        """Compile the kernels for calls of these shapes, before the first of them.

            op.warmup({"Q": (4, 16, 4096, 128), "K": (4, 16, 4096, 128), "V": (4, 16, 4096, 128)}, backward=True)

        Nothing is launched and no tensor is made. Each argument gives the shape of every input; float inputs are of
        `dtype`, contiguous. `backward` is for gradients of all of them. Lengths do not matter to compiled kernels, so
        one shape serves for all of a kind.

        Raises: CallError if the shapes do not fit the program, or there is no such device.
        """
        from attndsl.runtime.warming import place_of, warm

        numbers = tuple(
            self._arguments.number(p, params[p]) if params.get(p) is not None else None
            for p in self._arguments.params
        )
        unknown = params.keys() - set(self._arguments.params)
        if unknown:
            raise self._arguments.error(f"there is no parameter `{min(unknown)}`")
        how = "" if start is None else "end" if start == "end" else "int"
        at = self._position(start) if how == "int" else None
        where = place_of(self.name, device)
        for given in shapes:
            missing = [n for n in self._inputs if n not in given]
            if missing:
                raise self._arguments.error(f"the shape of input `{missing[0]}` is missing")
            sizes = {n: tuple(given[n]) for n in self._inputs}
            warm(self._engine, sizes, dtype, where, Start(how, at), numbers, backward)

    # --- parts of the keys ---

    def partial(
        self, /, *tensors: Tensor, first: int = 0, start: int | None = None, **named: Any
    ) -> State:
        """The state over some of the keys, whose first has the position `first`; otherwise as a call.

            a = op.partial(q, k[:, :, :n], v[:, :, :n])
            b = op.partial(q, k[:, :, n:], v[:, :, n:], first=n)
            o = op.finish(op.merge(a, b))

        `start` is the position of the first query. A part may be empty, and rows may see none of its keys.
        States have no gradient.

        Raises: CallError A0511 where the program has no such state (it takes several sweeps, or uses
        the number of keys).
        """
        given, params = self._arguments.of(tensors, named)
        if torch.is_grad_enabled() and any(x.requires_grad for x in given):
            raise CallError(
                "A0501",
                f"{self.name}: partial results cannot be differentiated through",
                help="call it under `torch.no_grad()`",
            )
        places = {
            "first": operator.index(first),
            "start": 0 if start is None else self._position(start),
        }
        for word, at in places.items():
            if at < 0:
                raise CallError("A0505", f"{self.name}: `{word}` is {at}, and positions begin at 0")
        return self._partials.partial(
            given, places["first"], places["start"], self._arguments.given(params)
        )

    def merge(self, *states: State) -> State:
        """The state over the keys of all `states`, in whatever order they come; parts must not overlap.

        Raises: CallError A0512 where states do not belong together.
        """
        return self._partials.merge(states)

    def finish(self, state: State) -> Any:
        """The outputs of a state over all keys, as a call returns them."""
        out = tuple(self._partials.finish(state))
        return out[0] if len(out) == 1 else out

    @property
    def carried(self) -> tuple[Carried, ...]:
        """What a state holds: each value with its reduction, its identity, its ranks, and what corrects it."""
        return self._partials.monoid.carried

    def explain(self, backward: bool = False) -> str:
        """The program as a cascade, and how it is scheduled; with its backward pass if asked for."""
        wrt = (
            tuple(t.name for t in self.cascade.inputs if t.dtype is DType.FLOAT) if backward else ()
        )
        passes = self._engine.planner(self.cascade, wrt)
        parts = [print_cascade(self.cascade), *(f"# {n}" for n in passes.forward.notes)]
        if passes.backward is not None:
            if passes.backward_cascade is not None:
                parts.append(print_cascade(passes.backward_cascade))
            parts += [f"# {n}" for n in passes.backward.notes]
        return "\n".join(p.rstrip() for p in parts) + "\n"

    def source(self, backend: str = "eager", backward: bool = True) -> str:
        """The text of the generated module."""
        wrt = (
            tuple(t.name for t in self.cascade.inputs if t.dtype is DType.FLOAT) if backward else ()
        )
        return self._engine.stage("none", wrt, backend).text

    # --- debug mode ---

    @torch.no_grad()
    def _check_values(
        self, given: tuple[Tensor, ...], params: tuple[Number | None, ...], start: Any
    ) -> None:
        self._engine.check(given)
        if isinstance(start, Tensor):
            check_places(self.name, start)
        inputs = dict(zip(self._inputs, given, strict=True))
        numbers = self._arguments.given(params)
        check_assumes(self.cascade, inputs, numbers)
        interpret(self.cascade, inputs, numbers, start=start, debug=True)
        check_rounds(self.cascade, inputs, numbers, start)


def _rebuilt(
    cascade: Cascade,
    backend: str | None,
    header: str,
    autotune: str,
    deterministic: bool,
    precision: str,
) -> CompiledAttention:
    return CompiledAttention(
        cascade,
        backend=backend,
        header=header,
        autotune=autotune,
        deterministic=deterministic,
        precision=precision,
    )
