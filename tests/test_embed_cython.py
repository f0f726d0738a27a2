"""examples/embed_cython, compiled against the installed gopoll; and the check of ABI numbers.

docs/embedding.md, "In Cython, without the GIL". tests/test_packaging.py compiles against a wheel
what a stranger may cimport; here a whole loop runs.
"""

import ctypes
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

import gopoll
from helpers.polls import Running

EXAMPLE = Path(__file__).parent.parent / "examples" / "embed_cython"

pytestmark = pytest.mark.timeout(300)  # a compiler is waited for

CLIENT = """if 1:
    import socket, sys
    host, port, conns, messages = sys.argv[1], *map(int, sys.argv[2:])
    socks = [socket.create_connection((host, port), timeout=60) for _ in range(conns)]
    for n in range(messages):
        for sock in socks:
            sock.sendall(b"%08d" % n)
        for sock in socks:
            got = b""
            while len(got) < 8:
                got += sock.recv(8 - len(got)) or sys.exit("closed")
            assert got == b"%08d" % n, got
    for sock in socks:
        sock.close()
    print("ok")
"""


def load(path):
    """Import the extension module *path*."""
    name = path.name.partition(".")[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def echoloop(tmp_path_factory):
    """The module of the example, built as its setup.py says, in a folder of its own."""
    folder = tmp_path_factory.mktemp("embed_cython")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("echoloop.*.so")
    return load(path)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@contextmanager
def running(echoloop, listener, **options):
    """The example's loop, running on a thread; stopped, joined and closed afterwards."""
    loop = echoloop.EchoLoop(listener.fileno(), **options)
    thread = Running(loop.run)
    try:
        yield
    finally:
        loop.stop()
        thread.join()
        loop.close()


@pytest.fixture
def loop(echoloop, listener):
    with running(echoloop, listener):
        yield


def client(listener, conns, messages):
    """Start a process that converses over *conns* connections."""
    address = [str(part) for part in listener.getsockname()]
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, *address, str(conns), str(messages)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_example_echoes_without_the_gil(loop, listener):
    """This thread waits for the client and keeps the GIL meanwhile: a loop that wanted it hangs."""
    python = ctypes.PyDLL(None)  # keeps the GIL during a call, which CDLL gives up
    info = ctypes.create_string_buffer(256)
    with client(listener, conns=20, messages=200) as process:
        assert python.waitid(os.P_PID, process.pid, info, os.WEXITED | os.WNOWAIT) == 0
        said, errors = process.communicate(timeout=60)
    assert (said, errors) == ("ok\n", "")


def test_more_than_a_socket_buffer_holds_comes_back(loop, listener):
    """The peer does not read at first: the loop parks for writing, and goes on."""
    payload = bytes(range(256)) * 16384
    with socket.create_connection(listener.getsockname(), timeout=60) as sock:
        sender = threading.Thread(target=sock.sendall, args=(payload,))
        sender.start()
        got = bytearray()
        while len(got) < len(payload):
            got += sock.recv(1 << 16)
        sender.join()
    assert got == payload


def test_who_is_idle_for_too_long_is_closed_by_a_deadline(echoloop, listener):
    with running(echoloop, listener, idle_s=0.05):
        with socket.create_connection(listener.getsockname(), timeout=60) as sock:
            sock.sendall(b"hello")
            assert sock.recv(5, socket.MSG_WAITALL) in (b"hello", b"")  # b"": a very slow machine
            assert sock.recv(1) == b""


def test_stop_closes_the_connections_that_are_open(echoloop, listener):
    """The leak guard counts their descriptors; the listener stays the caller's."""
    with running(echoloop, listener):
        socks = [socket.create_connection(listener.getsockname(), timeout=60) for _ in range(10)]
        for sock in socks:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
    for sock in socks:
        assert sock.recv(1) == b""
        sock.close()
    assert listener.getsockname()


def test_a_stop_before_run_is_not_lost(echoloop, listener):
    loop = echoloop.EchoLoop(listener.fileno())
    loop.stop()
    Running(loop.run).join()
    loop.close()


# -- the ABI number --------------------------------------------------------------------------------

STRANGER = """
from gopoll cimport {names}
cdef void *take():
    return {uses}
"""


@pytest.mark.parametrize(
    ("names", "uses", "change"),
    [
        ("netpoll", "<void *>netpoll", None),
        ("netpoll", "<void *>netpoll", ("_netpoll.pxd", "uintptr_t *out, int cap)", "int cap)")),
        ("Poller", "<void *>Poller", ("_pollerbase.pxd", "int closed", "int closed[99]")),
    ],
    ids=["the number alone", "a function", "a class"],
)
def test_another_abi_is_an_import_error_that_says_what_to_do(names, uses, change, tmp_path):
    """Also where Cython itself would find a wrong signature or size, and say only that."""
    package = Path(gopoll.get_include()) / "gopoll"
    (tmp_path / "gopoll").mkdir()
    for path in package.glob("*.pxd"):
        shutil.copy(path, tmp_path / "gopoll")
    changes = [("_poller.pxd", "GOPOLL_ABI_VERSION 1", "GOPOLL_ABI_VERSION 7")]
    for name, old, new in changes + [change] * bool(change):
        path = tmp_path / "gopoll" / name
        text = path.read_text()
        assert text.count(old) >= 1
        path.write_text(text.replace(old, new, 1))
    (tmp_path / "stranger.pyx").write_text(STRANGER.format(names=names, uses=uses))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "Cython.Build.Cythonize", "-3", "-i", "-q"),
            *("-X", "freethreading_compatible=True", "stranger.pyx"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("stranger.*.so")
    with pytest.raises(ImportError) as caught:
        load(path)
    assert str(caught.value) == (
        f"compiled against gopoll ABI 7, but ABI {gopoll.ABI_VERSION} is installed: compile this "
        "extension again beside the installed gopoll, or install a gopoll of ABI 7"
    )


def test_get_include_is_where_the_pxd_files_are():
    assert (Path(gopoll.get_include()) / "gopoll" / "__init__.pxd").is_file()
