"""The standard layout."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attndsl.diagnostics import DiagnosticError
from attndsl.frontend import format_source, parse, print_ast
from attndsl.source import Source

EXAMPLES = Path(__file__).parents[3] / "examples"
UGLY = """# what this is
attention   f( Q[b,i,e],K[b , j,e],# keys
   V[b,j,f], w:int=4)->O[b,i,f]{   # opens
batch b
# scores
S[ i,j ]=Q[i,e]*K[j,e]/sqrt( |e| )where j<=i,i-j<w  # causal
  M[i] = max [j] ( S[i,j] );Longer[i,j] = exp(S[i,j]-M[i]) # weights


  O[i,f]=Longer[i,j]  # first
     *V[j,f]          # second
# the end
}  # closes
# after
"""

PRETTY = """# what this is
# keys
attention f(Q[b,i,e], K[b,j,e], V[b,j,f], w: int = 4) -> O[b,i,f] {  # opens
  batch b
  # scores
  S[i,j]      = Q[i,e] * K[j,e] / sqrt(|e|)   where j <= i, i - j < w  # causal
  M[i]        = max[j](S[i,j])
  Longer[i,j] = exp(S[i,j] - M[i])  # weights

  # first
  O[i,f] = Longer[i,j] * V[j,f]  # second
  # the end
}  # closes

# after
"""


def test_the_layout() -> None:
    assert format_source(UGLY) == PRETTY


def test_formatting_twice_changes_nothing() -> None:
    assert format_source(PRETTY) == PRETTY


def test_examples_keep_their_meaning_and_comments(contract: list[str]) -> None:
    for text in contract:
        formatted = format_source(text)
        assert parse(Source("a", formatted)) == parse(Source("b", text))
        assert format_source(formatted) == formatted
        assert _comments(formatted) == _comments(text)


def _comments(text: str) -> list[str]:
    return [c.rstrip() for c in re.findall(r"#[^\n]*", text)]


def test_a_long_header_is_broken() -> None:
    inputs = ", ".join(f"Tensor{k}[b,h,i,e]" for k in range(9))
    sum_of = " + ".join(f"Tensor{k}[i,e]" for k in range(9))
    out = format_source(f"attention f({inputs}) -> O[b,h,i,e] {{ batch b, h O[i,e] = {sum_of} }}")
    lines = out.split("\n")
    assert lines[0] == "attention f("
    assert lines[3] == ") -> O[b,h,i,e] {"
    assert max(map(len, lines[:4])) <= 100
    assert format_source(out) == out


def test_defs_stay_together_or_apart_as_they_were() -> None:
    defs = "def a(x) = x\ndef b(x) = x\n\n# two\ndef c(x) = x\n\n"
    text = defs + "attention f(X[i]) -> O[i] {\n  O[i] = a(b(c(X[i])))\n}\n"
    assert format_source(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("# only\n\n\n  # words  \n", "# only\n\n\n# words\n"), ("", ""), ("\n\n", "")],
)
def test_nothing_but_comments(text: str, expected: str) -> None:
    assert format_source(text) == expected


def test_literals_are_kept_as_written() -> None:
    text = "attention f(X[i]) -> O[i] {\n  O[i] = X[i] * 1e-6 + 4_096 * .5\n}\n"
    assert format_source(text) == text


def test_a_program_that_does_not_parse_is_refused() -> None:
    with pytest.raises(DiagnosticError):
        format_source("attention f(")


def test_the_printer_and_the_parser_agree(contract: list[str]) -> None:
    for text in contract:
        tree = parse(Source("a", text))
        assert parse(Source("b", print_ast(tree))) == tree


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.attn")), ids=lambda p: p.stem)
def test_examples_stand_in_the_standard_layout(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert format_source(text) == text
