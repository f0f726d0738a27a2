"""Build the Cython extensions; everything that is only data stands in pyproject.toml.

Called by pip, build and `python setup.py`; tests/test_source.py reads DIRECTIVES from here.
Switches in the environment: GOPOLL_TRACE=1 (line tracing for coverage, C beside the .pyx),
GOPOLL_SANITIZE=thread|address|undefined. Each switch has a build folder of its own.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TRACE = os.environ.get("GOPOLL_TRACE", "") not in ("", "0")
SANITIZE = os.environ.get("GOPOLL_SANITIZE", "")
SANITIZERS = ("thread", "address", "undefined")
MODE = "trace" if TRACE else SANITIZE or "release"

DIRECTIVES = {
    "language_level": 3,
    "freethreading_compatible": True,  # an unmarked module turns the GIL back on
    "auto_pickle": False,  # nothing that holds a descriptor can be pickled
    "autotestdict": False,
    "binding": True,
    "embedsignature": True,
    "embedsignature.format": "python",
    # These are C, so x[-1] on a typed list reads before its start; a test looks for that.
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "linetrace": TRACE,
}


def compile_args():
    """Return the flags for the C compiler, optimisation included.

    setuptools lets CFLAGS from the environment replace Python's own flags: what the code needs
    (wrapping integers, no strict aliasing) is said here as well.
    """
    args = ["-O3", "-g1", "-fwrapv", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function"]
    args.append(f"-ffile-prefix-map={ROOT}=gopoll")  # the same bytes from any folder
    args.append(f'-DGOPOLL_BUILD="{MODE}"')  # gopoll._poller.BUILD: the benches ask
    if TRACE:
        args += ["-O0", "-DCYTHON_TRACE=1", "-DCYTHON_TRACE_NOGIL=1"]
    if SANITIZE:
        args += [f"-fsanitize={SANITIZE}", "-O1", "-g", "-fno-omit-frame-pointer"]
    if SANITIZE == "undefined":
        args.append("-fno-wrapv")
    return args


def extensions():
    """Return one Extension for each .pyx below src/gopoll."""
    link_args = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
    return [
        Extension(
            ".".join(path.relative_to("src").with_suffix("").parts),
            [str(path)],
            extra_compile_args=compile_args(),
            extra_link_args=link_args,
        )
        for path in sorted(Path("src/gopoll").rglob("*.pyx"))
    ]


class BuildExt(build_ext):
    """Translate all .pyx at once into the build folder, then compile them side by side."""

    def build_extensions(self):
        from Cython.Build import cythonize

        # Coverage looks for the C beside the .pyx; every other build keeps src clean.
        folder = None if TRACE else str(Path(self.build_temp).parent / "c")
        translated = cythonize(
            list(self.extensions),
            build_dir=folder,
            compiler_directives=DIRECTIVES,
            nthreads=os.cpu_count() or 1,
        )
        by_name = {ext.name: ext for ext in translated}
        for ext in self.extensions:
            ext.sources = by_name[ext.name].sources
            ext.depends = by_name[ext.name].depends
        super().build_extensions()


def check():
    """End the build with one line where it cannot succeed."""
    if sys.platform != "linux":
        sys.exit(f"gopoll: Linux only (it is built on epoll); this is {sys.platform}")
    if SANITIZE and SANITIZE not in SANITIZERS:
        sys.exit(f"gopoll: GOPOLL_SANITIZE={SANITIZE}: one of {', '.join(SANITIZERS)}")
    if TRACE and SANITIZE:
        sys.exit("gopoll: GOPOLL_TRACE and GOPOLL_SANITIZE do not go together")


if __name__ == "__main__":
    check()
    os.chdir(ROOT)
    setup(
        ext_modules=extensions(),
        cmdclass={"build_ext": BuildExt},
        options={
            "build": {"build_base": f"build/{sys.implementation.cache_tag}{sys.abiflags}-{MODE}"},
            "build_ext": {"parallel": os.cpu_count() or 1},
        },
    )
