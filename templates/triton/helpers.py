"""Functions that generated kernels call. Each is copied into a module that uses it, after its own callees."""

import os

import triton
import triton.language as tl
from triton.language.target_info import cuda_capability_geq

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
PRODUCTS = tl.constexpr("bf16x6")


@triton.jit
def dot(a, b, acc, OUT: tl.constexpr):
    """`acc + a @ b`, accumulated in OUT; `acc` may be None."""
    if INTERPRETED:
        # Triton's interpreter multiplies the raw bits of bfloat16.
        return tl.dot(a.to(OUT), b.to(OUT), acc, input_precision="ieee", out_dtype=OUT)
    elif cuda_capability_geq(9, 0) and not cuda_capability_geq(12, 0):
        # Of float32, many parts: it pays where matrix units read them from shared memory.
        return tl.dot(a, b, acc, input_precision=PRODUCTS, out_dtype=OUT)
    else:
        return tl.dot(a, b, acc, input_precision="ieee", out_dtype=OUT)


@triton.jit
def to_eight(x, T: tl.constexpr):
    """`x` in a type of 8 bits, to the nearest; Triton's interpreter cuts digits off, and keeps them all here."""
    if INTERPRETED:
        return x
    else:
        return x.to(T)


@triton.jit
def load_tile(ptrs, mask, tiles, at):
    """A tile of rows, 0 outside: by the copy engine where it knows the tensor's `tiles`, else through pointers."""
    if tiles is None:
        return tl.load(ptrs, mask=mask, other=0.0)
    else:
        return tiles.load(at).reshape(ptrs.shape)


@triton.jit
def load_halves(ptrs, mask, tiles, at, scales):
    """A tile of rows; as two halves of 16 bits and the rows' scales, where the launcher took the tensor apart."""
    if scales is None:
        return load_tile(ptrs, mask, tiles, at)
    else:
        first = tiles.load(at).reshape(ptrs.shape)
        second = tiles.load(at[:-1] + (ptrs.shape[1],)).reshape(ptrs.shape)  # noqa: RUF005 (no unpacking in kernels)
        return first, second, scales.load(at[:-1]).reshape([ptrs.shape[0]])


@triton.jit
def dot_of_rows(a, b, T: tl.constexpr, OUT: tl.constexpr):
    """`a @ b.T` of tiles of rows."""
    if isinstance(a, tl.tuple):
        turned = tl.trans(b[0])
        out = tl.dot(a[1], turned, None, out_dtype=OUT)
        out = tl.dot(a[0], tl.trans(b[1]), out, out_dtype=OUT)
        out = tl.dot(a[0], turned, out, out_dtype=OUT)
        return out * (a[2][:, None] * b[2][None, :])
    else:
        return dot(a.to(T), tl.trans(b.to(T)), None, OUT)


@triton.jit
def dot_by_rows(a, b, acc, T: tl.constexpr, OUT: tl.constexpr):
    """`acc + a @ b`, where `b` is a tile of rows; `acc` may be None."""
    if isinstance(b, tl.tuple):
        a = a * b[2][None, :]
        # The largest of each row is brought to between 2**12 and 2**13.
        bits = tl.max(a.to(tl.int32, bitcast=True) & 0x7F800000, 1)
        bits = tl.minimum(tl.maximum(bits, 24 << 23), 230 << 23)
        a = a * (((254 << 23) - bits).to(tl.float32, bitcast=True) * 4096.0)[:, None]
        first = a.to(tl.float16)
        second = (a - first.to(tl.float32)).to(tl.float16)
        out = tl.dot(second, b[0], None, out_dtype=OUT)
        out = tl.dot(first, b[1], out, out_dtype=OUT)
        out = tl.dot(first, b[0], out, out_dtype=OUT)
        out = out * (bits.to(tl.float32, bitcast=True) * 0.000244140625)[:, None]
        return out if acc is None else acc + out
    else:
        return dot(a.to(T), b.to(T), acc, OUT)


@triton.jit
def gather(ptrs):
    """Values of an input at addresses of their own.

    In the compiler's eyes a pure function of the address: what several pairs of a thread share, as the diagonals of a
    Toeplitz table, is read once; and no copy of the pairs passes through shared memory, as it does for `tl.load`.
    """
    kind: tl.constexpr = ptrs.dtype.element_ty
    if INTERPRETED:
        return tl.load(ptrs)
    elif kind == tl.float32:
        return tl.inline_asm_elementwise(
            "ld.global.nc.f32 $0, [$1];", "=f,l", [ptrs], tl.float32, True, 1
        )
    elif kind == tl.int32:
        return tl.inline_asm_elementwise(
            "ld.global.nc.b32 $0, [$1];", "=r,l", [ptrs], tl.int32, True, 1
        )
    elif kind == tl.bfloat16:
        return tl.inline_asm_elementwise(
            "ld.global.nc.b16 $0, [$1];", "=h,l", [ptrs], tl.bfloat16, True, 1
        )
    elif kind == tl.float16:
        return tl.inline_asm_elementwise(
            "ld.global.nc.b16 $0, [$1];", "=h,l", [ptrs], tl.float16, True, 1
        )
    elif kind == tl.int64:
        return tl.inline_asm_elementwise(
            "ld.global.nc.b64 $0, [$1];", "=l,l", [ptrs], tl.int64, True, 1
        )
    else:
        return tl.load(ptrs)


@triton.jit
def pick(x, at, AXIS: tl.constexpr):
    """`x` at points of one of its two axes.

    As a row of points it passes through shared memory once. Along an axis, warps would exchange it value by value.
    """
    HIGH: tl.constexpr = x.shape[0]
    WIDE: tl.constexpr = x.shape[1]
    row = tl.arange(0, HIGH)[:, None] if AXIS == 1 else at
    column = at if AXIS == 1 else tl.arange(0, WIDE)[None, :]
    MANY: tl.constexpr = at.shape[0] * at.shape[1]
    out = tl.gather(tl.reshape(x, [HIGH * WIDE]), tl.reshape(row * WIDE + column, [MANY]), 0)
    return tl.reshape(out, [at.shape[0], at.shape[1]])


@triton.jit
def pick_within(x, at, AXIS: tl.constexpr):
    """As `pick`, and 0 where there is no such point."""
    inside = (at >= 0) & (at < x.shape[AXIS])
    return tl.where(inside, pick(x, tl.where(inside, at, 0), AXIS), 0.0)


@triton.jit
def whole_dot(a, b, acc, T: tl.constexpr, OUT: tl.constexpr):
    """As `dot` of operands in T, with what the cast to T takes from them."""
    x, y = a.to(T), b.to(T)
    acc = dot(x, y, acc, OUT)
    if T.primitive_bitwidth == 16:
        if a.dtype != T:
            acc = dot((a.to(OUT) - x.to(OUT)).to(T), y, acc, OUT)
        if b.dtype != T:
            acc = dot(x, (b.to(OUT) - y.to(OUT)).to(T), acc, OUT)
    return acc


@triton.jit
def times_vector(a, x, OUT: tl.constexpr):
    """`sum[k](a[m,k] * x[k])`. Of bfloat16 on matrix units: `x` is the sum of two numbers of it, in rows of their own.

    What is left of `x` beside these is its 2**-17th part. Float16 has no room for sums over long sequences. The tile is
    the right side: a narrow one there is read out of bounds by warp-group products of Triton 3.6 (`padded`).
    """
    if INTERPRETED or a.dtype != tl.bfloat16 or OUT != tl.float32:
        return tl.sum(a.to(OUT) * x[None, :], 1)
    else:
        at = tl.arange(0, 16)[:, None]
        high = x.to(tl.bfloat16)
        low = (x - high.to(OUT)).to(tl.bfloat16)
        parts = tl.where(at == 0, high[None, :], tl.where(at == 1, low[None, :], 0.0))
        return tl.sum(tl.dot(parts, tl.trans(a)), 0)


@triton.jit
def exact_dot(a, b, acc, OUT: tl.constexpr):
    """As `dot`; operands of float32 on matrix units too, by three products of what each operand is rounded to."""
    if OUT == tl.float32 and a.dtype == OUT and not INTERPRETED:
        return tl.dot(a, b, acc, input_precision="tf32x3", out_dtype=OUT)
    else:
        return dot(a, b, acc, OUT)


@triton.jit
def near_dot(a, b, acc, OUT: tl.constexpr, TYPE: tl.constexpr):
    """As `exact_dot`, of what will be rounded to TYPE: by one product where that is no more exact."""
    if OUT == tl.float32 and TYPE.primitive_bitwidth == 16 and not INTERPRETED:
        return tl.dot(a, b, acc, input_precision="tf32", out_dtype=OUT)
    else:
        return exact_dot(a, b, acc, OUT)


@triton.jit
def larger_blocks(
    inverse,
    matrix,
    row,
    column,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    OUT: tl.constexpr,
    TYPE: tl.constexpr,
):
    """Of `I - matrix`, the inverses of diagonal blocks of `LAST` positions from those of `FIRST`.

    The inverse of a block of twice the size is made of those of its halves.
    """
    for k in tl.static_range(0, 8):
        if (FIRST << k) < LAST:
            same = row // (FIRST << (k + 1)) == column // (FIRST << (k + 1))
            across = row // (FIRST << k) != column // (FIRST << k)
            part = tl.where(same & across, matrix, 0.0)
            left = near_dot(inverse, part, None, OUT, TYPE)
            inverse = near_dot(left, inverse, inverse, OUT, TYPE)
    return inverse


@triton.jit
def inverse_of(matrix, OUT: tl.constexpr, SIZE: tl.constexpr, TYPE: tl.constexpr):
    """`(I - matrix)^-1` of a strictly triangular matrix, by inverses of ever larger blocks.

    Blocks of two are inverted by changing a sign. It has no larger entries than substitution meets, unlike powers of
    the matrix. Blocks of 16 are inverted side by side: what is beside them is no work.
    """
    i = tl.arange(0, SIZE)
    row, column = i[:, None], i[None, :]
    if SIZE > 16 and OUT == tl.float32:
        BLOCKS: tl.constexpr = SIZE // 16
        block = tl.arange(0, BLOCKS)
        own = block[:, None, None, None] == block[None, None, :, None]
        small = tl.sum(tl.where(own, matrix.reshape(BLOCKS, 16, BLOCKS, 16), 0.0), 2)
        k = tl.arange(0, 16)
        r, c = k[None, :, None], k[None, None, :]
        inverse = tl.where(r // 2 == c // 2, small, 0.0) + tl.where(r == c, 1.0, 0.0)
        inverse = larger_blocks(inverse, small, r, c, 2, 16, OUT, TYPE)
        spread = tl.broadcast_to(inverse[:, :, None, :], (BLOCKS, 16, BLOCKS, 16))
        inverse = tl.where(own, spread, 0.0).reshape(SIZE, SIZE)
        return larger_blocks(inverse, matrix, row, column, 16, SIZE, OUT, TYPE)
    else:
        inverse = tl.where(row // 2 == column // 2, matrix, 0.0) + tl.where(row == column, 1.0, 0.0)
        return larger_blocks(inverse, matrix, row, column, 2, SIZE, OUT, TYPE)


@triton.jit
def solve(matrix, right, OUT: tl.constexpr, SIZE: tl.constexpr):
    """The solution of `x = right + matrix @ x` for a strictly triangular matrix."""
    return exact_dot(inverse_of(matrix, OUT, SIZE, OUT), right, None, OUT)


@triton.jit
def safe_div(a, b):
    """`a / b`, and 0 for 0/0: a quotient of two sums over no points."""
    # Not `&`: Triton's interpreter cannot join a scalar's condition with a block's. The divisor is left as it is, so
    # that one of a row is inverted once; and a constant 0 would be converted apart from the quotients, one by one.
    return tl.where(tl.where(b == 0.0, a == 0.0, False), a, a / b)


@triton.jit
def truth(x):
    """A condition on numbers, to be joined with a block's: Triton's interpreter takes that of floats for a float."""
    return tl.where(x, 1, 0) != 0


@triton.jit
def within(x, N: tl.constexpr, PAD: tl.constexpr):
    """Which points of a padded axis are real; the constant True where nothing is padded, so that no mask is left."""
    if N == PAD:
        return tl.full([PAD], True, tl.int1)
    else:
        return x < N


@triton.jit
def reach_of_tile(reach_ptr, row, tile, tiles):
    """What `find_reach` found for a tile: `[low, high)`, and `[full_low, full_high)` within."""
    at = reach_ptr + 4 + (tl.cast(row, tl.int64) * tiles + tile) * 4
    return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)


@triton.jit
def reach(bounds_ptr, at, count, length, first, last, BLOCK: tl.constexpr):
    """`[low, high)`: blocks that may hold an id in `[first, last]`; `[full_low, full_high)`: blocks of one id alone.

    `bounds_ptr` holds the least ids of all blocks of `count` sequences, then the greatest; `at` is the sequence.
    """
    CHUNK: tl.constexpr = 128
    blocks = tl.cdiv(length, BLOCK)
    least_ptr = bounds_ptr + tl.cast(at, tl.int64) * blocks
    most_ptr = least_ptr + tl.cast(count, tl.int64) * blocks
    low = length + 0
    high = length * 0
    full_low = length + 0
    full_high = length * 0
    full = length * 0
    for chunk in range(0, bound(blocks), CHUNK):
        block = chunk + tl.arange(0, CHUNK)
        there = block < blocks
        least = tl.load(least_ptr + block, mask=there, other=0)
        most = tl.load(most_ptr + block, mask=there, other=0)
        start = block * BLOCK
        hit = there & (least <= last) & (most >= first)
        low = tl.minimum(low, tl.min(tl.where(hit, start, length), 0))
        high = tl.maximum(high, tl.max(tl.where(hit, start + BLOCK, 0), 0))
        same = there & (least == last) & (most == first)
        full_low = tl.minimum(full_low, tl.min(tl.where(same, start, length), 0))
        full_high = tl.maximum(full_high, tl.max(tl.where(same, start + BLOCK, 0), 0))
        full += tl.sum(same.to(tl.int32), 0) * BLOCK
    whole = full == full_high - full_low
    return low, high, tl.where(whole, full_low, 0), tl.where(whole, full_high, 0)


@triton.jit
def floor_div(a, b):
    """Integer quotient, rounded down; `//` of Triton rounds towards zero."""
    q = a // b
    r = a - q * b
    return q - ((r != 0) & ((r < 0) != (b < 0))).to(tl.int32)


@triton.jit
def floor_mod(a, b):
    """Integer remainder with the sign of `b`; `%` of Triton has the sign of `a`.

    Not by `%`: Triton takes remainders of consecutive numbers to be consecutive, also below zero, where they are not.
    """
    r = a - (a // b) * b
    return r + tl.where((r != 0) & ((r < 0) != (b < 0)), b, 0)


@triton.jit
def floor_div_float(a, b):
    """Quotient, rounded down."""
    return tl.floor(a / b)


@triton.jit
def floor_mod_float(a, b):
    """Remainder with the sign of `b`."""
    return a - tl.floor(a / b) * b


@triton.jit
def epsilon(ACC: tl.constexpr):
    """The distance from 1 to the next number."""
    if ACC.primitive_bitwidth == 64:
        return 2.220446049250313e-16
    else:
        return 1.1920928955078125e-07


@triton.jit
def span(T: tl.constexpr):
    """An exponent whose exponential, and its reciprocal, the type holds beside another factor."""
    if T == tl.float16:
        return 6.0
    else:
        return 75.0


@triton.jit
def square(x):
    """`x ** 2`."""
    return x * x


@triton.jit
def power_static(x, N: tl.constexpr):
    """`x ** N` for an exponent that is written in the program."""
    out = x
    for _ in tl.static_range(N - 1):
        out = out * x
    return out


@triton.jit
def power_integer(x, n):
    """`x ** n` of integers, exact as long as it fits; `n` is not negative."""
    out = x * 0 + n * 0 + 1
    base = x + n * 0
    rest = n + x * 0
    for _ in tl.static_range(31):
        out = tl.where(rest % 2 == 1, out * base, out)
        base = base * base
        rest = rest // 2
    return out


@triton.jit
def near_log2(x, stored: tl.constexpr = tl.float32):
    """Binary logarithm; beside 16-bit types by one instruction, off by 2**-22 (absolutely, between 1/2 and 2)."""
    if x.dtype == tl.float32 and stored.primitive_bitwidth == 16 and not INTERPRETED:
        return tl.inline_asm_elementwise(
            "lg2.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.log2(x)


@triton.jit
def near_log(x, stored: tl.constexpr = tl.float32):
    """Natural logarithm, as `near_log2`."""
    if x.dtype == tl.float32 and stored.primitive_bitwidth == 16 and not INTERPRETED:
        return near_log2(x, stored) * 0.6931471805599453
    else:
        return tl.log(x)


@triton.jit
def power(x, y, stored: tl.constexpr = tl.float32):
    """`x ** y`; a negative `x` takes a whole `y`."""
    # Bounded, so that `0 ** 0` is 1 and not 0 times an infinity.
    log = near_log2(tl.abs(x), stored)
    log = tl.maximum(log, -3e38, propagate_nan=tl.PropagateNan.ALL)
    log = tl.minimum(log, 3e38, propagate_nan=tl.PropagateNan.ALL)
    half = y * 0.5
    # Of the exponent alone: a number for a whole tile, where it is one.
    signed = tl.where(half == tl.floor(half), 1.0, -1.0)
    below = tl.where(y == tl.floor(y), signed, float("nan"))
    return tl.exp2(y * log) * tl.where(x < 0, below, 1.0)


@triton.jit
def running_sums(x, AXIS: tl.constexpr, DOWN: tl.constexpr):
    """Running sums along an axis of a tile of pairs, each point included; from the end if DOWN.

    Of float32, as a product with a triangle of ones on matrix units: a number is the sum of three of bfloat16, whose
    products with 1 are exact. Infinities would meet the zeros of the triangle, and are the largest numbers instead.
    """
    if INTERPRETED or x.dtype != tl.float32:
        return tl.cumsum(x, AXIS, reverse=DOWN)
    else:
        at = tl.arange(0, x.shape[AXIS])
        if DOWN == (AXIS == 1):
            ones = (at[:, None] >= at[None, :]).to(tl.bfloat16)
        else:
            ones = (at[:, None] <= at[None, :]).to(tl.bfloat16)
        x = tl.maximum(x, -3e38, propagate_nan=tl.PropagateNan.ALL)
        x = tl.minimum(x, 3e38, propagate_nan=tl.PropagateNan.ALL)
        first = x.to(tl.bfloat16)
        rest = x - first.to(tl.float32)
        second = rest.to(tl.bfloat16)
        third = (rest - second.to(tl.float32)).to(tl.bfloat16)
        if AXIS == 1:
            out = tl.dot(third, ones)
            out = tl.dot(second, ones, out)
            return tl.dot(first, ones, out)
        else:
            out = tl.dot(ones, third)
            out = tl.dot(ones, second, out)
            return tl.dot(ones, first, out)


@triton.jit
def sign(x):
    """-1, 0 or 1."""
    return tl.where(x > 0, 1, tl.where(x < 0, -1, 0)).to(x.dtype)


@triton.jit
def reciprocal(x):
    """1 / x for x >= 1: in float32 one instruction, off by one unit in the last place."""
    if x.dtype == tl.float32 and not INTERPRETED:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return 1.0 / x


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)); an exponential without end has the reciprocal 0."""
    return reciprocal(1.0 + tl.exp(-x))


@triton.jit
def tanh(x, stored: tl.constexpr = tl.float32):
    """Hyperbolic tangent by one exponential; near 0, where that form cancels, by its series.

    Beside bfloat16 (8 bits) the hardware's own is used, whose relative error is about 2**-11.
    """
    if stored == tl.bfloat16 and not INTERPRETED:
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        t = 1.0 - 2.0 / (1.0 + tl.exp2(x * 2.8853900817779268))
        if x.dtype == tl.float32:
            s = x * x
            near = x * (1.0 + s * (-0.33333333333 + s * (0.13333333333 - s * 0.05396825397)))
            t = tl.where(tl.abs(x) < 0.2, near, t)
        return t


@triton.jit
def log1p(x):
    """log(1 + x) for 0 <= x <= 1, as exact near 0: in float32 by a polynomial, off by two units in the last place."""
    if x.dtype == tl.float32:
        # Interpolates log(1 + x) / x at Chebyshev points.
        p = 0.005126102123
        p = p * x - 0.02907406461
        p = p * x + 0.07751608662
        p = p * x - 0.1360224761
        p = p * x + 0.1907688073
        p = p * x - 0.2483539899
        p = p * x + 0.3331812171
        p = p * x - 0.4999944498
        p = p * x + 0.9999999659
        return x * p
    else:
        u = 1.0 + x  # Kahan's form
        return tl.where(u == 1.0, x, tl.log(u) * (x / tl.where(u == 1.0, 1.0, u - 1.0)))


@triton.jit
def softplus(x):
    """log(1 + exp(x)) without overflow."""
    return tl.maximum(x, 0.0) + log1p(tl.exp(-tl.abs(x)))


@triton.jit
def logsigmoid(x):
    """log(sigmoid(x)) without overflow."""
    return tl.minimum(x, 0.0) - log1p(tl.exp(-tl.abs(x)))


@triton.jit
def expm1(x):
    """exp(x) - 1 for x <= 0, without the loss near 0 (Kahan)."""
    u = tl.exp(x)
    near = tl.where(u == 1.0, 1.0, tl.log(tl.maximum(u, 1e-30)))
    return tl.where(u == 1.0, x, tl.where(u < 0.5, u - 1.0, (u - 1.0) * x / near))


@triton.jit
def elu(x):
    """x for x > 0, exp(x) - 1 below."""
    return tl.where(x > 0, x, expm1(tl.minimum(x, 0.0)))


@triton.jit
def silu(x):
    """x * sigmoid(x)."""
    return x * sigmoid(x)


@triton.jit
def gelu(x):
    """x times the normal distribution function of x."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def acos(x):
    """Inverse cosine: Abramowitz and Stegun 4.4.46, and two Newton steps where the sine is not small."""
    a = tl.abs(x)
    p = 0.0066700901 - 0.0012624911 * a
    p = -0.0170881256 + a * p
    p = 0.0308918810 + a * p
    p = -0.0501743046 + a * p
    p = 0.0889789874 + a * p
    p = -0.2145988016 + a * p
    p = 1.5707963050 + a * p
    y = p * tl.sqrt(tl.maximum(1.0 - a, 0.0))
    for _ in tl.static_range(2):
        s = tl.sin(y)
        y = tl.where(s > 0.01, y + (tl.cos(y) - a) / tl.where(s > 0.01, s, 1.0), y)
    return tl.where(a > 1, float("nan"), tl.where(x < 0, 3.141592653589793 - y, y))


@triton.jit
def multiply(a, b):
    """The combination of a product reduction."""
    return a * b


@triton.jit
def larger(a, b):
    """The combination of a running maximum."""
    return tl.maximum(a, b)


@triton.jit
def smaller(a, b):
    """The combination of a running minimum."""
    return tl.minimum(a, b)


@triton.jit
def fixed_point(x, scale):
    """`x * scale` to the nearest whole number: sums of such numbers do not depend on their order."""
    return tl.floor(x * scale + 0.5).to(tl.int64)


@triton.jit
def columns_of(x):
    """The columns of a tile, in a loop: numbers made of them are made anew at every turn, and take no registers."""
    column = tl.arange(0, x.shape[1])
    if INTERPRETED:
        return column
    return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [column], tl.int32, False, 1)


@triton.jit
def skewed(x):
    """x[m, n] at [m, (m - n - 1) mod |n|]: what lies on one diagonal lies in one column."""
    m = tl.arange(0, x.shape[0])
    return tl.gather(x, (m[:, None] - columns_of(x)[None, :] - 1) & (x.shape[1] - 1), 1)


@triton.jit
def diagonals(x, stretch):
    """Sums of the diagonals of a `skewed` tile: a stretch of them, as many as it has columns.

    Column r of stretch p has the diagonal that meets the tile's first column in row (p - 1) * |n| + 1 + r.
    """
    m = tl.arange(0, x.shape[0])
    here = (m[:, None] - columns_of(x)[None, :] - 1 + x.shape[1]) // x.shape[1] == stretch
    return tl.sum(tl.where(here, x, 0.0), 0)


@triton.jit
def bound(x):
    """A loop bound. Numpy 2.4 makes no number of the one-element arrays that the interpreter keeps scalars in."""
    if INTERPRETED:
        return tl.cast(x, tl.int32).handle.data.item()
    else:
        return tl.cast(x, tl.int32)
