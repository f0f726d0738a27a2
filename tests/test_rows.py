"""The 101 behaviours that Go's own tests pin: each has a test here, or a reason why it has none.

They are the numbered rows of a list that is not in this repository. A test says which it is for, in
its docstring ("Row 7.", "Rows 42 and 43", "Rows 58-60") or in its name (test_row_7_...). What does
not apply stands in docs/source-map.md, under HEADING, as "- Row 7: why".
"""

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).parent
MAP = TESTS.parent / "docs" / "source-map.md"
HEADING = "## Rows of Go's tests that do not apply"
ALL = range(1, 102)

NUMBERS = r"\d+(?:(?:-|, and |, | and )\d+)*"


def rows_in(text):
    """Return the rows that a text names."""
    found = set()
    for numbers in re.findall(rf"\b[Rr]ows? ({NUMBERS})", text):
        for part in re.split(r", and |, | and ", numbers):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return found


def rows_of(source):
    """Return the rows that the test functions in *source* are for."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found |= rows_in(ast.get_docstring(node) or "")
            if named := re.match(r"test_row_(\d+)_", node.name):
                found.add(int(named[1]))
    return found


@functools.cache
def rows_with_a_test():
    """Return {row: files with a test for it}."""
    files = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for row in rows_of(path.read_text(encoding="utf-8")):
            files.setdefault(row, []).append(str(path.relative_to(TESTS)))
    return files


def excused():
    """Return {row: why it does not apply}."""
    _, heading, section = MAP.read_text(encoding="utf-8").partition(f"{HEADING}\n")
    assert heading, f"{MAP.name} has no section {HEADING!r}"
    section = section.partition("\n## ")[0]
    return {int(n): why for n, why in re.findall(r"^- Row (\d+): (.+)$", section, re.MULTILINE)}


def test_every_row_has_a_test_or_a_reason():
    missing = set(ALL) - set(rows_with_a_test()) - set(excused())
    assert not missing, f"rows {sorted(missing)} have neither"


def test_no_row_is_made_up():
    assert set(rows_with_a_test()) | set(excused()) <= set(ALL)


def test_every_form_is_read():
    source = '''
def test_a():
    """Row 7, and the clean-up; rows 42 and 43. Rows 58-60, 1, and 99: more."""

def test_row_8_b(): pass

def helper():
    """Row 5."""
'''
    assert rows_of(source) == {7, 42, 43, 58, 59, 60, 1, 99, 8}
