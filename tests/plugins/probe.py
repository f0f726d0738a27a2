"""The probes: test-only Cython modules, compiled once a run against the installed gopoll.

Called by the tests of the C floors, on the main thread. load() is for what cannot take a fixture.
"""

import atexit
import functools
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

SOURCES = Path(__file__).resolve().parent.parent / "probe"
DIRECTIVES = {
    "language_level": "3",
    "freethreading_compatible": "True",
    "boundscheck": "False",
    "wraparound": "False",
    "cdivision": "True",
}

BUILD = """
import sys
from setuptools import Extension, setup
name, source, lib, temp = sys.argv[1:]
setup(
    name=name,
    packages=[],
    py_modules=[],
    script_args=["-q", "build_ext", "--build-lib", lib, "--build-temp", temp],
    ext_modules=[Extension(name, [source], extra_compile_args=["-O2", "-g1", "-fwrapv"])],
)
"""


def run(*command: object, cwd: Path) -> None:
    """Run *command* or raise with what it said."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{command[:3]} failed:\n{done.stdout}{done.stderr}")


def build(name: str, folder: Path) -> Path:
    """Translate and compile tests/probe/*name*.pyx in *folder*; return the extension."""
    spec = importlib.util.find_spec("gopoll")
    assert spec is not None
    assert spec.submodule_search_locations
    include = Path(next(iter(spec.submodule_search_locations))).parent
    options = [word for item in DIRECTIVES.items() for word in ("-X", "=".join(item))]
    target = folder / f"{name}.c"
    run("-m", "cython", *options, "-I", include, "-o", target, SOURCES / f"{name}.pyx", cwd=folder)
    run("-c", BUILD, name, target, folder, folder / "temp", cwd=folder)
    return folder / (name + sysconfig.get_config_var("EXT_SUFFIX"))


@functools.cache
def load(name: str = "_probe") -> ModuleType:
    """Return the probe *name*, built on first need."""
    folder = Path(tempfile.mkdtemp(prefix="gopoll-probe-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    spec = importlib.util.spec_from_file_location(name, build(name, folder))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def probe() -> ModuleType:
    """The C floors, function by function."""
    return load()
