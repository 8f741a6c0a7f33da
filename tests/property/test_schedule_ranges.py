"""The tiles that a sweep visits against counting: nothing of the domain is missed, nothing is seen twice, nothing
outside of it is taken without a mask."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attndsl.diagnostics import DiagnosticError
from tests.unit.schedule.harness import forward, kernels, load, visited

CONST = st.integers(-4, 9)
POSITIVE = st.integers(1, 5)
COMPARE = st.sampled_from(["<", "<=", ">", ">=", "=="])

# Read as the language and as Python: the two agree on all of it.
ATOMS = st.one_of(
    st.builds("j {} i + {}".format, COMPARE, CONST),
    st.builds("i - w {} j + {}".format, COMPARE, CONST),
    st.builds("{} * j {} i + {}".format, POSITIVE, COMPARE, CONST),
    st.builds("j {} {} * i - {}".format, COMPARE, POSITIVE, CONST),
    st.builds("j // {0} {1} i // {0}".format, POSITIVE, COMPARE),
    st.builds("(j + {}) // {} {} (i - {}) // {}".format, CONST, POSITIVE, COMPARE, CONST, POSITIVE),
    st.builds("j // w {} i // w".format, COMPARE),
    st.builds("{} - j {} -i".format, CONST, COMPARE),
    st.builds("j {} {}".format, COMPARE, CONST),
    st.builds("i {} {}".format, COMPARE, CONST),
    st.builds("(i - j) % {} == 0".format, POSITIVE),
    st.builds("j {} i % {}".format, COMPARE, POSITIVE),
    st.builds("j {} max(i - {}, w)".format, COMPARE, CONST),
)


def conditions() -> st.SearchStrategy[str]:
    def joined(op: str, parts: list[str]) -> str:
        return f" {op} ".join(f"({p})" for p in parts)

    negated = st.builds("not ({})".format, ATOMS)
    both = st.lists(ATOMS | negated, min_size=1, max_size=3).map(lambda p: joined("and", p))
    either = st.lists(both, min_size=1, max_size=3).map(lambda p: joined("or", p))
    return either | st.builds("not ({})".format, either)


PROGRAM = """attention t(Q[b,i], K[b,j], w: int = 3) -> O[b,i] {{
  batch b
  S[i,j] = Q[i] * K[j]   where {}
  O[i] = max[j](S[i,j])
}}"""


@settings(max_examples=150, deadline=None)
@given(
    conditions(),
    st.integers(1, 21),
    st.integers(1, 21),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4, 8]),
    POSITIVE,
    st.sampled_from([0, 0, 3]),
)
def test_every_point_is_in_one_tile(
    where: str, ni: int, nj: int, rows: int, columns: int, w: int, start: int
) -> None:
    text = PROGRAM.format(where)
    try:
        cascade = load(text)
        (kernel,) = kernels(forward(text))
    except DiagnosticError:
        assume(False)
    env = {"w": w, "start": start, "|i|": ni, "|j|": nj, "b": 0, "|b|": 1}
    if all(p.name != "start" for p in cascade.params):
        start = 0
    holds = eval(f"lambda i, j, w: {where}")
    for origin in range(0, ni, rows):
        tiles = list(visited(kernel, env, origin, {"i": rows, "j": columns}))
        starts = [s for s, _ in tiles]
        assert all(s % columns == 0 and 0 <= s < nj for s in starts)
        assert len(starts) == len(set(starts)), "a tile is visited twice"
        inside = range(origin, min(origin + rows, ni))
        wanted = {
            j // columns * columns for i in inside for j in range(nj) if holds(i + start, j, w)
        }
        assert wanted <= set(starts), "a tile is missed"
        for s, masked in tiles:
            if not masked:
                assert s + columns <= nj
                assert all(holds(i + start, j, w) for i in inside for j in range(s, s + columns))


def test_causal_sweeps_are_short_and_mostly_unmasked() -> None:
    """Soundness alone would be satisfied by masking everything everywhere."""
    (kernel,) = kernels(forward(PROGRAM.format("j <= i and i - w < j")))
    env = {"w": 64, "start": 0, "|i|": 256, "|j|": 256, "b": 0, "|b|": 1}
    blocks = {"i": 16, "j": 16}
    assert list(visited(kernel, env, 128, blocks)) == [
        (64, True),
        (80, False),
        (96, False),
        (112, False),
        (128, True),
    ]


def test_a_global_prefix_and_a_window_are_two_stretches() -> None:
    (kernel,) = kernels(forward(PROGRAM.format("j <= i and (j < 16 or i - j < w)")))
    env = {"w": 32, "start": 0, "|i|": 256, "|j|": 256, "b": 0, "|b|": 1}
    tiles = list(visited(kernel, env, 128, {"i": 16, "j": 16}))
    assert sorted(s for s, _ in tiles) == [0, 96, 112, 128]
    assert (112, False) in tiles


def test_a_prefix_is_read_whole_by_its_own_keys_alone() -> None:
    """Keys stream past queries in the forward pass, queries past keys in the gradients of keys."""
    text = PROGRAM.replace("max[j]", "sum[j]").replace("O[b,i]", "O[b,j]").replace("O[i]", "O[j]")
    (kernel,) = kernels(forward(text.replace("sum[j]", "sum[i]").format("j < w or j <= i")))
    env = {"w": 40, "start": 0, "|i|": 128, "|j|": 128, "b": 0, "|b|": 1}
    blocks = {"i": 16, "j": 16}
    every = range(0, 128, 16)
    assert sorted(visited(kernel, env, 16, blocks)) == [(s, False) for s in every]
    assert sorted(s for s, _ in visited(kernel, env, 32, blocks)) == [*every]  # 40 lies in this one
    assert sorted(visited(kernel, env, 96, blocks)) == [(96, True), (112, False)]


def test_rows_outside_the_domain_visit_nothing() -> None:
    (kernel,) = kernels(forward(PROGRAM.format("i < w and j <= i")))
    env = {"w": 40, "start": 0, "|i|": 128, "|j|": 128, "b": 0, "|b|": 1}
    blocks = {"i": 16, "j": 16}
    assert list(visited(kernel, env, 16, blocks)) == [(0, False), (16, True)]
    assert list(visited(kernel, env, 32, blocks)) == [(0, True), (16, True), (32, True)]
    assert not list(visited(kernel, env, 48, blocks))
