"""What a program can tell of the documentation: programs check, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from attndsl import driver
from attndsl.errors import CODES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
README = (ROOT / "README.md").read_text()
PROGRAMS = [
    pytest.param(match[1], id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, match in enumerate(
        re.finditer(r"^```attn\n(.*?)^```$", page.read_text(), re.M | re.S), 1
    )
]


def _names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HEAD = """\
from attndsl.frontend.annotations import Tensor

def attention_spec(fn):
    return fn
"""


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return _load(ROOT / "docs" / "generate.py")


def test_there_are_programs_to_check() -> None:
    assert len(PROGRAMS) > 5


@pytest.mark.parametrize("text", PROGRAMS)
def test_every_program_checks(text: str, tmp_path: Path) -> None:
    path = tmp_path / "block.attn"
    path.write_text(text)
    result = driver.check_file(path)
    assert not result.diagnostics, "\n".join(map(str, result.diagnostics))
    assert result.cascades


def test_the_function_of_the_language_page_is_a_program(tmp_path: Path) -> None:
    from attndsl.frontend.decorator import spec_from_function

    page = (ROOT / "docs" / "reference" / "language.md").read_text()
    section = page[page.index("## Python functions") :]
    block = re.search(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert block is not None
    # The decorator would compile it; reading the body is what the page is about.
    text = block[1].replace("from attndsl import Tensor, attention_spec\n", HEAD)
    path = tmp_path / "block.py"
    path.write_text(text)
    spec = spec_from_function(_load(path).documents)
    assert not spec.diagnostics
    assert [o.name for o in spec.cascade.outputs] == ["O"]


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$|^    [^\n]*$", "", page.read_text(), flags=re.M | re.S)
    text = re.sub(r"`[^`]*`", "", text)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        goal = (page.parent / name).resolve() if name else page
        assert goal.exists(), f"{target} in {page}"
        if anchor and goal.suffix == ".md":
            assert anchor in _anchors(goal), f"{target} in {page}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings)
    return {re.sub(r"\s+", "-", heading.strip()) for heading in plain}


def test_the_error_index_is_current(generate: ModuleType) -> None:
    page = ROOT / "docs" / "reference" / "errors.md"
    assert page.read_text() == generate.errors_page(), "run python docs/generate.py"


def test_the_table_of_sweeps_is_current(generate: ModuleType) -> None:
    page = ROOT / "docs" / "explanation" / "sweeps.md"
    assert page.read_text() == generate.sweeps_page(), "run python docs/generate.py"


def test_the_grammar_is_current(generate: ModuleType) -> None:
    page = (ROOT / "docs" / "reference" / "language.md").read_text()
    assert page == generate.with_grammar(page), "run python docs/generate.py"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    return _load(ROOT / "docs" / "figures.py")


def test_figures_are_those_of_the_files(figures: ModuleType) -> None:
    """Every block between marks, and every picture, says what its file of measurements says."""
    for page in figures.PAGES:
        text = page.read_text()
        assert figures.BLOCK.search(text), page
        assert text.count("<!-- figures:") == len(figures.BLOCK.findall(text)), page
        assert text == figures.filled(text), f"{page}: run python docs/figures.py"
    for path in figures.PICTURES:
        assert path.read_text() == figures.picture(path), "run python docs/figures.py"


def test_a_figure_that_was_changed_by_hand_is_found(figures: ModuleType) -> None:
    (page, *_) = figures.PAGES
    text = page.read_text()
    at = re.search(r"\*\*(\d+) TFLOP/s forward", text)
    assert at is not None
    changed = text.replace(at[0], at[0].replace(at[1], str(int(at[1]) + 100)))
    assert changed != text
    assert figures.filled(changed) == text


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_codes_in_prose_exist(page: Path) -> None:
    for code in re.findall(r"\bA0[1-9]\d\d\b", page.read_text()):
        assert code in CODES, f"{code} in {page}"


def test_the_kernel_in_the_readme_is_the_one_that_comes_out(tmp_path: Path) -> None:
    excerpt = re.search(r"key tiles:.*?^```python\n(.*?)^```$", README, re.M | re.S)
    assert excerpt is not None
    dumped: dict[str, str] = {}
    driver.compile_file(
        ROOT / "examples" / "alibi.attn",
        out=tmp_path,
        dump={"kernel"},
        on_dump=dumped.__setitem__,
        stop_after="kernel",
    )
    made = {line.strip() for line in dumped["kernel"].splitlines()}
    for line in excerpt[1].splitlines():
        assert line.strip() in made


def test_the_program_in_the_readme_is_the_example() -> None:
    program = re.search(r"^```attn\n(.*?)^```$", README, re.M | re.S)
    assert program is not None
    example = (ROOT / "examples" / "alibi.attn").read_text()
    told, meant = ("".join(re.sub(r"#.*", "", t).split()) for t in (program[1], example))
    assert told == meant


def test_the_readme_links_every_example() -> None:
    linked = set(re.findall(r"examples/(\w+\.attn)", README))
    assert linked == {p.name for p in (ROOT / "examples").glob("*.attn")}


def test_the_readme_begins_with_all_that_matters() -> None:
    top = "\n".join(README.splitlines()[:30])
    for part in ("```attn", "attndsl compile", "```python", "TFLOP/s"):
        assert part in top


def test_every_step_is_documented_in_order() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    steps = page[page.index("The steps, in order:") : page.index("## attndsl verify")]
    assert tuple(re.findall(r"^\| `(\w+)`", steps, re.M)) == driver.STEPS


def test_nothing_is_left_to_fill_in() -> None:
    unfinished = [
        str(page.relative_to(ROOT))
        for page in PAGES
        if re.search(r"<!-- (TO FILL|OUTPUT|STEPS)", page.read_text())
    ]
    assert not unfinished


def test_every_variable_of_the_environment_is_read() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z_]+)", page[page.index("## Environment") :], re.M))
    sources = "".join(p.read_text() for p in (ROOT / "attndsl").rglob("*.py"))
    own = set(re.findall(r"\bATTNDSL_[A-Z_]+\b", sources))
    assert own <= documented
    assert not [name for name in documented if name not in sources]
