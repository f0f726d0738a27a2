"""What a stranger gets: the sdist and the wheel, built, opened, installed and used.

The tree that the tests stand in is copied, so that a build leaves nothing behind and an old
build folder cannot help. Nothing is downloaded: the build uses the tools of the test extra.
"""

import ast
import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
SHIPPED = {".py", ".pyx", ".pxd", ".pyi", ".typed", ".md", ".txt", ".go", ".h"}
LEFT_BEHIND = shutil.ignore_patterns(
    ".git",
    ".venv*",
    "build",
    "dist",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "*.so",
)

# Everything here waits for a compiler.
pytestmark = pytest.mark.timeout(600)


def shell(*command, cwd=None, status=0, **env):
    """Run *command* away from the tree; return what it printed, or fail with all of it."""
    run = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **{k: str(v) for k, v in env.items()}},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == status, f"{command}: exit status {run.returncode}\n{run.stdout}"
    return run.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Return a folder with the sdist and the wheel that was made out of that sdist."""
    top = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, top / "tree", ignore=LEFT_BEHIND)
    said = shell(
        sys.executable, "-m", "build", "--no-isolation", "-o", top / "dist", cwd=top / "tree"
    )
    (top / "dist" / "log").write_text(said)
    return top / "dist"


@pytest.fixture(scope="session")
def wheel(built):
    """Return the wheel."""
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def empty(tmp_path_factory, wheel):
    """Return the python of an environment that holds this wheel and nothing else."""
    top = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(top, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", top / "bin" / "python"]
    shell(*pip, "install", "-q", "--no-index", wheel, cwd=top)
    return top / "bin" / "python"


def data_files():
    """Return what is under src/gopoll and not built, as paths below src."""
    found = (path.relative_to(ROOT / "src") for path in (ROOT / "src" / "gopoll").rglob("*.*"))
    return {str(p) for p in found if p.suffix in (".py", ".pxd", ".pyi", ".typed")}


def modules():
    """Return the compiled modules as paths below src, without an ending."""
    src = ROOT / "src"
    return {str(p.relative_to(src).with_suffix("")) for p in (src / "gopoll").rglob("*.pyx")}


def test_wheel_holds_the_package_and_no_source_of_the_build(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if not n.startswith("gopoll-")}
    compiled = {n for n in names if n.endswith(".so")}
    assert names - compiled == data_files()
    assert {n.split(".")[0] for n in compiled} == modules()
    assert "gopoll/py.typed" in names


def test_every_compiled_module_has_its_stub_and_its_pxd():
    assert {m for m in modules() if f"{m}.pyi" not in data_files()} == set()
    assert {m for m in modules() if f"{m}.pxd" not in data_files()} == set()


def test_sdist_holds_what_builds_and_tests_itself(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {"pyproject.toml", "setup.py", "LICENSE", "README.md", "CHANGELOG.md", ".ci/run"}
    for top in ("src", "tests", "bench", "docs", "examples"):
        wanted |= {
            str(p.relative_to(ROOT))
            for p in (ROOT / top).rglob("*.*")
            if p.suffix in SHIPPED and "egg-info" not in str(p)
        }
    wanted |= {str(p.relative_to(ROOT)) for p in (ROOT / "bench").rglob("*.c")}
    assert wanted - names == set()
    assert {n for n in names if n.endswith((".c", ".so", ".o", ".pyc"))} - wanted == set()


def test_build_warns_of_nothing(built):
    """Neither Cython, nor gcc, nor setuptools; MANIFEST.in excludes what may not be there."""
    said = re.findall(r"(?i)^.*\bwarning\b.*$", (built / "log").read_text(), re.MULTILINE)
    not_ours = "no previously-included|byte-compiling"
    if sys.version_info >= (3, 14):  # Cython's own code, as gcc 15 sees it
        not_ours += "|‘(nargs|kwnames)’ may be used uninitialized"
    said = [s for s in said if not re.search(not_ours, s)]
    assert not said, "\n".join(said)


def test_metadata_promises_no_dependency_and_this_version(empty):
    code = "import importlib.metadata as m; d = m.metadata('gopoll'); print(d['Version']); "
    code += "print([r for r in d.get_all('Requires-Dist') or [] if 'extra ==' not in r]); "
    code += "print(d['License-Expression'], d.get_all('License-File'), d['Requires-Python'])"
    said = shell(empty, "-c", code, cwd="/").splitlines()
    assert said == [PROJECT["version"], "[]", "MIT ['LICENSE'] >=3.11"]


def distribution(requirement):
    """Return the name of a distribution out of a requirement, normalised."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_extras_are_in_the_metadata_of_the_wheel(empty):
    code = "import importlib.metadata as m; d = m.metadata('gopoll'); "
    code += "print(*d.get_all('Provides-Extra')); print(*d.get_all('Requires-Dist'), sep='\\n')"
    extras, *requirements = shell(empty, "-c", code, cwd="/").splitlines()
    assert {"test", "bench"} <= set(extras.split())
    for extra, wanted in PROJECT["optional-dependencies"].items():
        found = [r for r in requirements if re.search(rf"""extra == ["']{extra}["']""", r)]
        assert sorted(map(distribution, found)) == sorted(map(distribution, wanted))


@pytest.mark.parametrize(("extra", "top"), [("test", "tests"), ("bench", "bench")])
def test_an_extra_holds_all_that_its_files_import(extra, top):
    """Otherwise `pip install '.[test]'` works only where something else has brought the rest."""
    owners = importlib.metadata.packages_distributions()
    given = set(map(distribution, PROJECT["optional-dependencies"][extra]))
    for path in (ROOT / top).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - {"gopoll"}:
                if name in owners and not (ROOT / top / name).exists():
                    assert set(map(distribution, owners[name])) & given, f"{path}: {name}"


def test_check_wheel_contents_is_content(wheel):
    said = shell(sys.executable, "-m", "check_wheel_contents", wheel, cwd=wheel.parent)
    assert said.strip().endswith(": OK"), said


def test_auditwheel_finds_a_portable_tag(wheel):
    said = shell(sys.executable, "-m", "auditwheel", "show", wheel, cwd=wheel.parent)
    said = " ".join(said.split())
    assert re.search(r'consistent with the following platform tag: "(many|musl)linux_', said), said


def test_no_file_of_the_wheel_names_the_folder_it_was_built_in(wheel, built):
    top = str(built.parent).encode()
    with zipfile.ZipFile(wheel) as archive:
        assert [n for n in archive.namelist() if top in archive.read(n)] == []


def test_installed_wheel_imports_everything_with_the_gil_as_it_was(empty):
    names = sorted(name.replace("/", ".") for name in modules())
    code = f"""if 1:
        import importlib, sys
        gil = getattr(sys, "_is_gil_enabled", lambda: True)
        for name in {names}:
            importlib.import_module(name)
            assert gil() is {not FREE_THREADED}, name
        import gopoll
        print(gopoll.__file__)
    """
    said = shell(empty, "-W", "error", "-c", code, cwd="/")
    assert Path(said.strip()).is_relative_to(empty.parent.parent)


@pytest.mark.parametrize("command", [["gopoll"], ["python", "-m", "gopoll"]], ids=" ".join)
def test_installed_wheel_runs_the_demo(empty, command):
    said = shell(empty.parent / command[0], *command[1:], "demo", "--seconds", "0.5", cwd="/")
    wanted = ["Text to send: hello\nMessage from server: hello\n", "messages/s", "latency p99"]
    assert [text for text in wanted if text not in said] == []


def test_a_stranger_can_cimport_from_the_installed_wheel(empty, tmp_path):
    """Compile tests/embed_probe against the wheel alone, and run it beside the wheel alone."""
    shutil.copytree(HERE / "embed_probe", tmp_path, dirs_exist_ok=True)
    site = shell(empty, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd="/")
    shell(
        *(sys.executable, "-m", "Cython.Build.Cythonize", "-3", "-i", "-q"),
        *("-X", "freethreading_compatible=True", "probe.pyx"),
        cwd=tmp_path,
        PYTHONPATH=site.strip(),
    )
    said = shell(empty, "-W", "error", "-c", "import probe; print(probe.main())", cwd=tmp_path)
    assert said.splitlines()[-1] == "ok"


@pytest.mark.parametrize(
    ("platform", "env", "text"),
    [
        ("darwin", {}, "gopoll: Linux only (it is built on epoll); this is darwin"),
        ("linux", {"GOPOLL_SANITIZE": "magic"}, "gopoll: GOPOLL_SANITIZE=magic: one of"),
        (
            "linux",
            {"GOPOLL_SANITIZE": "thread", "GOPOLL_TRACE": "1"},
            "gopoll: GOPOLL_TRACE and GOPOLL_SANITIZE do not go together",
        ),
    ],
)
def test_a_build_that_cannot_succeed_ends_in_one_line(platform, env, text, tmp_path):
    code = "import runpy, setuptools.command.build_ext, sys\n"  # they need the real platform
    code += f"sys.platform = {platform!r}; sys.argv[1:] = ['--version']; "
    code += f"runpy.run_path({str(ROOT / 'setup.py')!r}, run_name='__main__')"
    said = shell(sys.executable, "-c", code, cwd=tmp_path, status=1, **env)
    assert said.startswith(text)
    assert said.count("\n") == 1


def test_pip_gets_that_line_from_the_build_backend(tmp_path):
    """pip does not run setup.py itself: the backend does, and prints what ends it."""
    code = "import setuptools.build_meta, setuptools.command.build_ext, sys\n"
    code += "sys.platform = 'win32'; setuptools.build_meta.get_requires_for_build_wheel()"
    shutil.copytree(ROOT, tmp_path / "tree", ignore=LEFT_BEHIND)
    said = shell(sys.executable, "-c", code, cwd=tmp_path / "tree", status=1)
    assert said == "gopoll: Linux only (it is built on epoll); this is win32\n"


@pytest.mark.parametrize("switch", ["", "thread", "address", "undefined", "trace"])
def test_each_switch_builds_in_a_folder_of_its_own(switch, monkeypatch):
    monkeypatch.delenv("GOPOLL_TRACE", raising=False)
    monkeypatch.setenv("GOPOLL_SANITIZE", "" if switch == "trace" else switch)
    if switch == "trace":
        monkeypatch.setenv("GOPOLL_TRACE", "1")
    setup = runpy.run_path(str(ROOT / "setup.py"))
    assert setup["MODE"] == (switch or "release")
    assert f'-DGOPOLL_BUILD="{switch or "release"}"' in setup["compile_args"]()
    assert setup["DIRECTIVES"]["linetrace"] is (switch == "trace")
    assert (f"-fsanitize={switch}" in setup["compile_args"]()) is (switch not in ("", "trace"))


def test_suite_runs_against_an_installed_package():
    """A tree that is imported by accident hides what the wheel lacks (trace builds excepted)."""
    import gopoll

    inside = Path(gopoll.__file__).is_relative_to(ROOT / "src")
    assert not inside or os.environ.get("GOPOLL_TRACE"), gopoll.__file__


def readme_commands():
    """Return the lines of README.md that a newcomer pastes, by the name in their marker."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"<!-- command: (\w+) -->\n```\w*\n(.*)\n```", text)
    assert len(found) == len(dict(found))
    return dict(found)


def test_readme_has_one_line_for_the_demo_and_one_for_the_tests():
    commands = readme_commands()
    assert set(commands) == {"demo", "tests"}
    assert commands["demo"].endswith("gopoll demo")
    assert commands["tests"].endswith("pytest")
    assert all(command.startswith("python3 -m venv ") for command in commands.values())


def test_ci_reads_the_test_command_from_the_readme():
    said = shell("bash", ROOT / ".ci" / "run", "--show-test-command", cwd="/")
    assert said.strip() == readme_commands()["tests"]
