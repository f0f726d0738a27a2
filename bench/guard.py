"""The regression guard counts instructions and system calls: python -m bench.guard.

Run by hand from the top of the tree, and by tests/test_guard.py. guard_ops.py does six operations
under strace and under callgrind, which cut at its marks; bench/guard.json has what was counted
before. Both counts are the same on a busy machine. The status is 1 if there is more than before, or
nothing to compare with. What the figures depend on: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bench.guard_ops import BLOCKS, OPERATIONS
from bench.macro.processes import environment

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "guard.json"
PROGRAM = HERE / "guard_ops.py"
FORMAT = 1
MARK = "getppid"  # what guard_ops.mark calls
SECONDS = 300  # that a run may take; strace takes 1, callgrind 6 on a quiet machine
RECORD = "python -m bench.guard --record"

# Where instructions are executed, and how much more of them is none. Those of gopoll's own objects
# are the same to the digit in every run. The interpreter's type caches hash addresses, and malloc
# looks at what is free: both depend on what else the process has allocated.
TOLERANCES = {"gopoll": 0.005, "python": 0.05, "libc": 0.25}
SLACK = 5  # instructions on top: a compiler spills one register more because of something elsewhere

Calls = dict[str, Counter[str]]  # operation: of a whole block, by name
Instructions = dict[str, dict[str, float]]  # operation: of one operation, by place


class Missing(Exception):
    """There is no tool, or no figure to compare with; the text says which, and what to do."""


class Failed(Exception):
    """The operations could not be counted; the text says why."""


# -- counting --------------------------------------------------------------------------------------


def run(command: list[str], seed: int = 0) -> None:
    """Run a command to its end, with *seed* for the hashes of strings. Raises Failed."""
    env = environment() | {"PYTHONHASHSEED": str(seed)}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]} has not ended in {SECONDS} s") from None
    if done.returncode != 0:
        raise Failed(f"{command[0]} ended with status {done.returncode}: {done.stderr.strip()}")


def find_strace() -> None:
    """Raise Missing if system calls cannot be traced here."""
    if shutil.which("strace") is None:
        raise Missing("no strace on this machine")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode:
        raise Missing("strace may not trace here")


def find_valgrind() -> None:
    """Raise Missing if instructions cannot be counted here."""
    if shutil.which("valgrind") is None:
        raise Missing("no valgrind on this machine (apt-get install valgrind)")


def count_calls(names: list[str], program: Path = PROGRAM) -> Calls:
    """Count the system calls of a block of each operation. Raises Missing, Failed."""
    find_strace()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        run(["strace", "-f", "-o", str(trace), sys.executable, str(program), *names])
        lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    between: list[Counter[str]] = [Counter()]
    for line in lines:
        found = re.match(r"\d+ +(\w+)\(", line)  # no signals, no ends, no second halves
        if found is None:
            continue
        if found[1] == MARK:
            between.append(Counter())
        else:
            between[-1][found[1]] += 1
    # What comes in late, on a machine that is choked, adds calls to a block.
    found = cut(names, between[:-1])
    return {name: min(blocks, key=Counter.total) for name, blocks in found.items()}


def count_instructions(
    names: list[str], program: Path = PROGRAM, keep: Path | None = None, seed: int = 0
) -> Instructions:
    """Count the instructions of each operation. *keep*: a folder for callgrind's own files.

    Raises Missing, Failed.
    """
    find_valgrind()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        command = ["valgrind", "-q", "--vgdb=no", "--tool=callgrind", f"--callgrind-out-file={out}"]
        command += [f"--dump-before={MARK}", "--dump-line=no"]
        run([*command, sys.executable, str(program), *names], seed)
        dumps = sorted(out.parent.glob("callgrind.*"), key=lambda path: int(path.suffix[1:]))
        figures = {}
        for name, blocks in cut(names, dumps).items():
            counts = [by_place(path) for path in blocks]
            figures[name] = {
                place: round(min(found[place] for found in counts) / OPERATIONS[name][1], 1)
                for place in TOLERANCES
            }
            if keep is not None:
                shutil.copyfile(blocks[-1], keep / f"callgrind.{name.replace('/', '-')}")
    return figures


def cut(names: list[str], pieces: list[Any]) -> dict[str, list[Any]]:
    """Return {operation: its blocks} of what was counted before each mark. Raises Failed."""
    if len(pieces) != 2 * BLOCKS * len(names):
        raise Failed(f"{len(pieces)} marks were seen, {2 * BLOCKS * len(names)} were set")
    blocks = pieces[1::2]
    return {name: blocks[i * BLOCKS : (i + 1) * BLOCKS] for i, name in enumerate(names)}


def by_place(path: Path) -> Counter[str]:
    """Return how many instructions a file of callgrind has of each place.

    The cost of a function stands below its object (ob=); the line after calls= is what the callee
    has cost, which stands there too.
    """
    own = f"{package().parent}/"
    paths: dict[str, str] = {}
    counts: Counter[str] = Counter()
    place, callee = "python", False
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        found = re.match(r"c?ob=\((\d+)\) ?(.*)", line)
        if found:
            paths.setdefault(found[1], found[2])
            if line.startswith("ob="):
                place = place_of(paths[found[1]], own)
        elif line.startswith("calls="):
            callee = True
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not callee:
                counts[place] += int(line.split()[1])
            callee = False
    return counts


def place_of(path: str, own: str) -> str:
    """Return whose code an object of the process is."""
    if path.startswith(own):
        return "gopoll"
    libc = re.match(r"(ld|libc|libm|libpthread)[-.]", os.path.basename(path))
    return "libc" if libc else "python"


# -- builds ----------------------------------------------------------------------------------------


def package() -> Path:
    """Return a compiled module of the gopoll that is measured."""
    found = importlib.util.find_spec("gopoll._fdop")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin)


def own_build() -> dict[str, str]:
    """Say what gopoll's own instructions depend on, beside its sources."""
    module = package().read_bytes()
    flags = re.search(rb"GNU C\d* [ -~]+|clang version [ -~]+", module)
    cython = re.search(rb"_cython_(\w+)", module)
    return {
        "python": f"{sys.implementation.cache_tag}{sys.abiflags}",
        "machine": platform.machine(),
        "compiler": flags[0].decode() if flags else "unknown (stripped)",
        "cython": cython[1].decode().replace("_", ".") if cython else "unknown",
    }


def other_build() -> dict[str, str]:
    """Say what the instructions of the interpreter and of the C library depend on."""
    flags = sysconfig.get_config_var("PY_CFLAGS") or ""
    config = sysconfig.get_config_var("CONFIG_ARGS") or ""
    switches = re.findall(r"'(--(?:enable|disable|with)[^/']*)'", config)
    return {
        "version": platform.python_version(),
        "compiler": platform.python_compiler(),
        "flags": " ".join([flags, *switches]),
        "libc": " ".join(platform.libc_ver()),
    }


def load() -> dict[str, Any]:
    """Return the committed figures."""
    if not FIGURES.exists():
        return {"format": FORMAT, "calls": {}, "instructions": []}
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    if figures["format"] != FORMAT:
        raise Failed(f"{FIGURES} has format {figures['format']}, wanted {FORMAT}: {RECORD}")
    return figures


def recorded_calls(figures: dict[str, Any]) -> Calls:
    """Return the committed system calls. Raises Missing."""
    machine = platform.machine()
    if machine not in figures["calls"]:
        raise Missing(f"no system calls are recorded for {machine}: {RECORD}")
    return {name: Counter(calls) for name, calls in figures["calls"][machine].items()}


def recorded_instructions(figures: dict[str, Any]) -> Instructions:
    """Return the committed instructions that hold for this build. Raises Missing.

    Where this interpreter is unknown, those of gopoll's own code only, from another of its kind.
    """
    own, other = own_build(), other_build()
    alike = [entry for entry in figures["instructions"] if entry["gopoll"] == own]
    for entry in alike:
        if entry["interpreter"] == other:
            return entry["operations"]
    for entry in alike:
        return {name: {"gopoll": was["gopoll"]} for name, was in entry["operations"].items()}
    raise Missing(f"no instructions are recorded for this build: {RECORD} ({own})")


def record(calls: Calls | None, instructions: Instructions | None) -> None:
    """Write the figures of this machine and build, in the place of what they were."""
    figures = load()
    if calls is not None:
        ordered = {name: dict(sorted(found.items())) for name, found in calls.items()}
        figures["calls"][platform.machine()] = ordered
    if instructions is not None:
        build = {"gopoll": own_build(), "interpreter": other_build()}
        others = [entry for entry in figures["instructions"] if entry != entry | build]
        others.append(build | {"operations": instructions})
        figures["instructions"] = sorted(others, key=lambda e: e["interpreter"]["version"])
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


# -- comparing -------------------------------------------------------------------------------------


def other_calls(now: Calls, before: Calls) -> list[str]:
    """Return a line for each operation that makes other system calls, be it more or fewer."""
    lines = []
    for name, calls in now.items():
        was = before.get(name, Counter())
        changed = [f"{c} {was[c]} -> {calls[c]}" for c in sorted(calls | was) if calls[c] != was[c]]
        if changed:
            lines.append(f"{name}: in {OPERATIONS[name][1]} operations: {', '.join(changed)}")
    return lines


def grown(now: Instructions, before: Instructions) -> list[tuple[str, str]]:
    """Return (operation, place) where there are more instructions than are tolerated."""
    return [
        (name, place)
        for name, places in now.items()
        for place, was in before.get(name, {}).items()
        if places[place] > was * (1 + TOLERANCES[place]) + SLACK
    ]


def more_instructions(now: Instructions, before: Instructions) -> list[str]:
    """Return a line for each operation and place with more instructions than are tolerated."""
    lines = []
    for name, place in grown(now, before):
        was, count = before[name][place], now[name][place]
        change = f"{was:,.1f} -> {count:,.1f} ({count / was - 1:+.1%})"
        lines.append(f"{name}: in {place}: {change}")
    return lines


def least_instructions(
    now: Instructions, before: Instructions, program: Path = PROGRAM
) -> Instructions:
    """Return *now*, with what has grown counted twice again, alone and with other hashes.

    Two names that share a place in the interpreter's type cache, by their addresses, add 5 % to an
    operation: chance. What an operation really has more it has each time. Raises Missing, Failed.
    """
    for seed in (1, 2):
        names = sorted({name for name, _ in grown(now, before)})
        if names:
            again = count_instructions(names, program, seed=seed)
            for name, places in again.items():
                now = now | {name: {p: min(n, now[name][p]) for p, n in places.items()}}
    return now


def table(calls: Calls | None, instructions: Instructions | None, before: Instructions) -> str:
    """Return what was counted, per operation, with what has changed since."""
    lines = []
    if instructions is not None:
        head = "".join(f"{place:>18}" for place in TOLERANCES)
        lines += [f"{'instructions':<20}{'all':>9}{head}"]
        for name, places in instructions.items():
            cells = f"{name:<20}{sum(places.values()):>9,.0f}"
            for place, count in places.items():
                was = before.get(name, {}).get(place)
                change = f" {count / was - 1:+7.1%}" if was else " " * 8
                cells += f"{count:>10,.1f}{change}"
            lines.append(cells.rstrip())
    if calls is not None:
        lines += ["", "system calls"] if lines else ["system calls"]
        for name, found in calls.items():
            operations = OPERATIONS[name][1]
            each = ", ".join(f"{call} {n / operations:.4g}" for call, n in found.most_common())
            lines.append(f"{name:<20}{found.total() / operations:>9.4g}  {each}".rstrip())
    return "\n".join(lines)


# -- the command -----------------------------------------------------------------------------------


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.guard", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--record", action="store_true", help=f"write {FIGURES.name}, which is to be committed"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="keep callgrind's files there, one an operation: callgrind_annotate FILE",
    )
    return parser.parse_args()


def refuse_slow_builds() -> None:
    """Raise Missing if the installed gopoll is slow on purpose."""
    from gopoll._poller import BUILD

    if BUILD != "release":
        raise Missing(f"this gopoll is a {BUILD} build, its figures mean nothing")
    if sysconfig.get_config_var("Py_DEBUG"):
        raise Missing("this Python is a debug build, its figures mean nothing")


def make(folder: Path) -> None:
    """Make the folder of --keep. Raises Failed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise Failed(f"--keep: {exc}") from None


def main() -> int:
    """Count, print, compare or record."""
    args = options()
    names = list(OPERATIONS)
    try:
        refuse_slow_builds()
        find_strace()
        find_valgrind()
        if args.keep is not None:
            make(args.keep)
        calls = count_calls(names)
        instructions = count_instructions(names, keep=args.keep)
        figures = load()
    except (Missing, Failed) as err:
        sys.exit(f"bench.guard: {err}")
    if args.record:
        record(calls, instructions)
    problems: list[str] = []
    before: Instructions = {}
    try:
        before = recorded_instructions(figures)
        if not args.record:
            instructions = least_instructions(instructions, before)
        problems += more_instructions(instructions, before)
    except (Missing, Failed) as err:
        problems.append(str(err))
    try:
        problems += other_calls(calls, recorded_calls(figures))
    except Missing as err:
        problems.append(str(err))
    print(table(calls, instructions, before))
    if args.record:
        return 0
    for line in problems:
        print(f"bench.guard: {line}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
