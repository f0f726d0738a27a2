"""The house rules that a program can check, over every file of the tree the tests stand in."""

import ast
import collections
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "gopoll"
CYTHON = sorted([*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])
SOURCES = sorted([*CYTHON, *PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")])
CHECKS = sorted(
    path for top in ("tests", "bench", "examples") for path in (ROOT / top).rglob("*.py*")
)
EVERYTHING = [*SOURCES, *(path for path in CHECKS if path.suffix in (".py", ".pyx", ".pxd"))]

FILE_LINES = 550  # of the package; a test file may be longer while it is not split
FUNCTION_LINES = 90

# Floor by floor, from the cellar up (docs/design.md). A room may import from floors below and
# from itself; rooms on one floor do not know each other. A name ending in "." is a package.
FLOORS = [
    [("errors", "_atomic", "_bytes", "_throw")],
    [("_epoll",), ("_timers",)],
    [("_polltypes",)],
    [("_pollserver",)],
    [("_pollcache",)],
    [("_polldeadline",)],
    [("_park", "_host", "_netpoll", "_pollerbase", "_polldesc", "_poller")],
    [
        ("runtime.",),
        (
            "_fdmutex",
            "_sysfd",
            "_fdop",
            "_fdsock",
            "_fdvec",
            "_fdmsg",
            "_fdpipe",
            "_fdcopy",
            "_fdraw",
            "_fdpool",
            "_fd",
            "_sockaddr",
        ),
    ],
    [("net.",)],
    [("embed.",)],
    [("__init__", "__main__", "_cli.", "tls")],
]


def relative(path):
    return str(path.relative_to(ROOT))


def module_of(path):
    """Return the dotted name of *path* below the package: `net.conn`, `_epoll`, `__init__`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room_of(module):
    """Return (floor, room) of *module*, or None if it has none."""
    for floor, rooms in enumerate(FLOORS):
        for room in rooms:
            if any(f"{module}.".startswith(n) if n[-1] == "." else module == n for n in room):
                return floor, room
    return None


MODULES = {module_of(path) for path in SOURCES}


def resolve(name, names=()):
    """Return the modules of ours that `import name` or `from name import names` reaches."""
    if name != "gopoll" and not name.startswith("gopoll."):
        return set()
    inner = name.removeprefix("gopoll").removeprefix(".")
    found = {f"{inner}.{n}".removeprefix(".") for n in names} & MODULES
    if not found or len(found) < len(names):
        package = f"{inner}.__init__".removeprefix(".")
        found.add(package if package in MODULES or not inner else inner)
    return found


def python_imports(text):
    """Return what Python source imports of ours, imports inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: relative import; say gopoll.x"
            found |= resolve(node.module, [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            found |= set().union(*(resolve(alias.name) for alias in node.names))
    return found


CYTHON_FROM = re.compile(r"^[ \t]*from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|[^\n]*)", re.MULTILINE)
CYTHON_IMPORT = re.compile(r"^[ \t]*c?import\s+([\w., ]+)", re.MULTILINE)


def cython_imports(text):
    """Return what Cython source imports and cimports of ours."""
    found = set()
    text = re.sub(r"#.*", "", text)
    for match in re.finditer(
        r"^[ \t]*from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|[^\n]*)", text, re.MULTILINE
    ):
        names = re.split(r"[,\s]+", re.sub(r"\bas\s+\w+", "", match[2]).strip("() \n"))
        found |= resolve(match[1], [name for name in names if name])
    for match in CYTHON_IMPORT.finditer(text):
        for name in match[1].split(","):
            found |= resolve(name.split()[0])
    return found


def imports_of(path):
    text = path.read_text(encoding="utf-8")
    return (python_imports if path.suffix in (".py", ".pyi") else cython_imports)(text)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_down(path):
    module = module_of(path)
    assert room_of(module), f"{module} has no floor: give it one in FLOORS and in docs/design.md"
    floor, room = room_of(module)
    for other in sorted(imports_of(path) - {module}):
        there = room_of(other)
        assert there, f"{other} has no floor"
        assert there[0] < floor or there[1] == room, (
            f"{module} (floor {floor}) imports {other} (floor {there[0]})"
        )


def homeless(modules, design):
    """Return those of *modules* that the table of floors in *design* does not name."""
    table = design.partition("## The house")[2].partition("\n## ")[0]
    names = set(re.findall(r"\w+", table))
    return sorted(m for m in modules if m.rpartition(".")[2] not in names)


def test_the_floors_in_design_md_name_every_module():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert homeless(MODULES, design) == []
    assert homeless({"net.attic", "net.dial"}, design) == ["net.attic"]


def test_imports_make_no_circle():
    graph = {}
    for path in SOURCES:
        graph.setdefault(module_of(path), set()).update(imports_of(path) - {module_of(path)})
    done = set()

    def visit(module, trail):
        assert module not in trail, " -> ".join([*trail, module])
        if module not in done:
            for other in sorted(graph.get(module, ())):
                visit(other, [*trail, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])


def test_import_parsers_see_every_form():
    text = "import gopoll._epoll\nfrom gopoll._timers import a, b\nfrom gopoll import errors\n"
    assert python_imports(text) == {"_epoll", "_timers", "errors"}
    assert python_imports("from gopoll import dial") == {"__init__"}
    text = "from gopoll._epoll cimport (x,\n    y as z)\ncimport gopoll._timers as t\nimport os\n"
    assert cython_imports(text) == {"_epoll", "_timers"}


# A function of ours starts with cdef or cpdef; what an extern block declares is C's own.
SIGNATURE = re.compile(
    r"^[ \t]*(?:cdef|cpdef|ctypedef)\b[^=:\"\n]*\((?:[^()]|\([^()]*\))*\)[^:\n]*", re.MULTILINE
)
EXTERN = re.compile(r"^([ \t]*)cdef extern\b.*\n(?:(?:\1[ \t]+.*|[ \t]*)\n)*", re.MULTILINE)


def without_exception_rule(text):
    """Return the nogil signatures in *text* that say neither noexcept nor except."""
    text = EXTERN.sub("", re.sub(r"#.*", "", text))
    found = [" ".join(match[0].split()) for match in SIGNATURE.finditer(text)]
    return [s for s in found if re.search(r"\bnogil\b", s) and not re.search(r"except\b", s)]


@pytest.mark.parametrize("path", CYTHON, ids=relative)
def test_every_nogil_function_says_how_it_fails(path):
    assert not without_exception_rule(path.read_text(encoding="utf-8"))


def test_a_missing_exception_rule_is_seen():
    good = (
        "cdef extern from 'x.h' nogil:\n    int f(int)\n\n    void g()\n"
        "cdef int a(int x) except -1 nogil:\n    pass\n"
        "cdef void b(int x,\n    int y) noexcept nogil\n"
        "ctypedef int (*cb)(void *) noexcept nogil\ncdef int c = 1\n"
    )
    assert without_exception_rule(good) == []
    assert without_exception_rule("cdef void f(int x) nogil:\n    pass\n")
    assert without_exception_rule("    cdef inline int f(int x,\n      int y) nogil\n")


def translate(paths, folder):
    """Translate *paths* with the directives of the build; return what Cython says about them."""
    directives = runpy.run_path(str(ROOT / "setup.py"))["DIRECTIVES"]
    options = [option for k, v in directives.items() for option in ("-X", f"{k}={v}")]
    run = subprocess.run(
        [sys.executable, "-m", "cython", *options, "-o", f"{folder}/", *paths],
        cwd=ROOT / "src",
        capture_output=True,
        text=True,
    )
    return run.returncode, run.stdout + run.stderr


def test_cython_has_nothing_to_say(tmp_path):
    """No warning, and no performance hint: a cdef without noexcept costs 40 ns a call.

    A5: nor an error, as where a function without the GIL has an object in its hands.
    """
    modules = [p for p in CYTHON if p.suffix == ".pyx"]  # in one run, which parses each .pxd once
    assert translate(modules, tmp_path) == (0, "")
    assert len(list(tmp_path.iterdir())) == len(modules)


def test_a_performance_hint_is_seen(tmp_path):
    source = tmp_path / "hint.pyx"
    source.write_text("cdef void f() nogil:\n    pass\n\ndef g():\n    with nogil:\n        f()\n")
    status, said = translate([source], tmp_path)
    assert status == 0
    assert "performance hint" in said


@pytest.mark.parametrize("path", CYTHON, ids=relative)
def test_no_negative_index(path):
    """wraparound is off in the whole package: x[-1] would read before the start of a list."""
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
    assert not re.findall(r"[\w)\]]\[-\s*\w+\]", text)


@pytest.mark.parametrize("path", EVERYTHING, ids=relative)
def test_a_file_is_readable_in_one_sitting(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= (FILE_LINES if PACKAGE in path.parents else 800)
    assert max(map(len, lines), default=0) <= 100, max(lines, key=len)
    longest = max(functions(path), default=(0, ""))
    assert longest[0] <= FUNCTION_LINES, f"{longest[1]} has {longest[0]} lines"


def functions(path):
    """Yield (lines, name) of each function in *path*; Cython is measured by its indentation."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".py", ".pyi"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.end_lineno - node.lineno + 1, node.name
        return
    lines = text.splitlines()
    for start, line in enumerate(lines):
        head = re.match(r"([ \t]*)(?:async def|def|cdef|cpdef)\b(?! class).*?(\w+)\(", line)
        if not head:
            continue
        end = start
        for number, body in enumerate(lines[start + 1 :], start + 1):
            if body.strip():
                if len(body) - len(body.lstrip()) <= len(head[1]) and body.lstrip()[0] != ")":
                    break
                end = number
        yield end - start + 1, head[2]


def strays(design, texts):
    """Return the numbers in *texts* that have no row in *design*, and rows that are named once.

    An invariant is named at its writer and at its reader.
    """
    rows = re.findall(r"^\| ([A-Z]\d+) \|", design, re.MULTILINE)
    assert len(rows) == len(set(rows)), "a number has two rows"
    named = collections.Counter(n for text in texts for n in re.findall(r"\b[A-Z]\d{1,2}\b", text))
    return sorted(named.keys() - set(rows)), sorted(n for n in rows if named[n] < 2)


def test_what_a_comment_names_has_a_row_in_design_md():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert strays(design, [path.read_text(encoding="utf-8") for path in SOURCES]) == ([], [])
    assert strays("| P1 | a |\n| P2 | b |\n", ["P1, P1: P3", "# P2"]) == (["P3"], ["P2"])


def unheld(design, texts):
    """Return the numbers that none of the tests in the last column of their row in *design* names.

    texts: of each path, below the root of the tree. A folder stands for all that is in it.
    """
    rows = re.findall(r"^\| ([A-Z]\d+) \|.*\| ([^|]*) \|$", design, re.MULTILINE)
    return [
        number
        for number, cell in rows
        if not any(
            f"/{name}/" in f"/{path}/" and re.search(rf"\b{number}\b", text)
            for name in re.findall(r"`([^`]+)`", cell)
            for path, text in texts.items()
        )
    ]


def test_an_invariant_is_named_where_it_is_held():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    texts = {relative(path): path.read_text(encoding="utf-8") for path in EVERYTHING}
    assert unheld(design, texts) == []
    table = "| P1 | a | b | `test_a.py`, `tests/c` |\n| P2 | a | b | `b/test_b.py` |\n| A1 | a |\n"
    texts = {"tests/b/test_a.py": "P2, P11", "tests/b/test_b.py": "P1", "tests/c/d.py": "P1"}
    assert unheld(table, texts) == ["P2"]
    assert unheld(table, texts | {"tests/c/d.py": "", "tests/b/test_b.py": "P2"}) == ["P1"]


@pytest.mark.parametrize("path", EVERYTHING, ids=relative)
def test_an_open_end_has_a_number(path):
    text = path.read_text(encoding="utf-8")
    if path == Path(__file__).resolve():
        return
    assert not re.findall(r"\b(?:FIXME|XXX)\b|\bTODO\b(?!\(#\d+\):)", text)


@pytest.mark.parametrize("path", [p for p in SOURCES if p.suffix in (".py", ".pyx")], ids=relative)
def test_a_module_says_what_it_is_for(path):
    """The head of a module: what it is, in a line that fits; a stranger knows the room."""
    head = re.match(r'(?:#.*\n)*"""(.+)', path.read_text(encoding="utf-8"))
    assert head, "no docstring on top"
    assert len(head[1]) > 20, head[1]
