"""gopoll dial: stdin line by line against a peer that the test plays, on all kinds of stdin."""

import contextlib
import fcntl
import os
import signal
import socket
import threading

import pytest

from cli.tools import (
    PATIENT,
    WAY_IDS,
    WAYS,
    Peer,
    Terminal,
    finish,
    gopoll,
    outcome,
    running,
    shell,
)
from gopoll._cli import client
from net.tools import short_folder

SEND = "Text to send: "
MESSAGE = "Message from server: "


@contextlib.contextmanager
def echo_peer():
    """Have a peer that sends everything back, in a thread; give it and what it will have seen."""
    seen = []
    with Peer() as peer:

        def serve():
            peer.accept()
            seen.append(peer.echo_all())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield peer, seen
        finally:
            thread.join()


def transcript(*lines):
    """Return what is printed for *lines* that are echoed one by one."""
    return "".join(f"{SEND}{line}\n{MESSAGE}{line}\n" for line in lines)


def said(out, prefix):
    """Return what follows *prefix* in the lines of *out* that begin with it."""
    return [row.removeprefix(prefix) for row in out.splitlines() if row.startswith(prefix)]


# -- where stdin comes from ------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=WAY_IDS)
def test_a_pipe(way):
    with echo_peer() as (peer, seen):
        done = gopoll("dial", "tcp", peer.address, way=way, input="one\ntwo\n\nthree\n")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 8)
    assert said(done.stdout, SEND) == said(done.stdout, MESSAGE) == ["one", "two", "", "three"]
    assert seen == [b"one\ntwo\n\nthree\n"]


def test_a_file(tmp_path):
    file = tmp_path / "input"
    file.write_text("one\ntwo\n")
    with echo_peer() as (peer, seen), file.open() as stdin:
        done = gopoll("dial", "tcp", peer.address, way=PATIENT, stdin=stdin)
    assert outcome(done) == (0, transcript("one", "two"), "")
    assert seen == [b"one\ntwo\n"]


@pytest.mark.parametrize("network", ["udp", "unix"])
def test_a_peer_of_another_network(network):
    """Datagrams have no end: the client leaves once its own input has ended."""
    with contextlib.ExitStack() as stack:
        if network == "udp":
            s = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            s.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{s.getsockname()[1]}"
        else:
            s = stack.enter_context(socket.socket(socket.AF_UNIX))
            address = os.path.join(stack.enter_context(short_folder()), "s")
            s.bind(address)
            s.listen()

        def serve():
            peer = s if network == "udp" else s.accept()[0]
            for _ in range(2):
                data, addr = peer.recvfrom(100)
                peer.sendto(data, addr) if network == "udp" else peer.sendall(data)
            if network == "unix":
                peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        done = gopoll("dial", network, address, way=PATIENT, input="one\ntwo\n")
        thread.join()
    assert outcome(done) == (0, transcript("one", "two"), "")


def test_a_peer_of_datagrams_that_says_nothing():
    """It is not waited for beyond the end of the input."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
        done = gopoll("dial", "udp", address, input="one\ntwo\n")
        assert outcome(done) == (0, f"{SEND}one\n{SEND}two\n", "")
        assert [s.recv(100), s.recv(100)] == [b"one\n", b"two\n"]


def test_a_socket():
    ours, theirs = socket.socketpair()
    with echo_peer() as (peer, _), ours, theirs:
        with running("dial", "tcp", peer.address, stdin=theirs, text=True) as process:
            ours.sendall(b"one\n")
            ours.shutdown(socket.SHUT_WR)
            assert finish(process) == (0, transcript("one"), "")


def test_a_terminal():
    with Peer() as peer, Terminal("dial", "tcp", peer.address) as terminal:
        conn = peer.accept()
        assert terminal.expect(SEND) == SEND
        terminal.type(b"hello\n")
        assert peer.line() == b"hello\n"
        conn.sendall(b"and you\n")
        assert terminal.expect(SEND) == f"hello\n{MESSAGE}and you\n{SEND}"
        terminal.type(b"\x04")
        assert peer.line() == b""
        conn.sendall(b"last words\n")
        conn.close()
        assert terminal.finish() == (0, f"\n{MESSAGE}last words\n")


@pytest.mark.parametrize("redirection", ["</dev/null", "<&-"])
def test_no_input_at_all_ends_cleanly(redirection):
    with echo_peer() as (peer, seen):
        done = shell(f'"$@" {redirection}', "dial", "tcp", peer.address)
    assert outcome(done) == (0, "", "")
    assert seen == [b""]


def test_a_stdin_that_cannot_be_read_is_one_line(tmp_path):
    with echo_peer() as (peer, _):
        done = shell(f'"$@" 0>"{tmp_path}/file"', "dial", "tcp", peer.address)
    assert outcome(done) == (1, "", "gopoll: read stdin: bad file descriptor\n")


def status_flags(fd):
    return fcntl.fcntl(fd, fcntl.F_GETFL)


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_the_flags_of_stdin_stay_as_they_are(kind):
    """O_NONBLOCK would be seen by the shell, which shares the open file with us."""
    writer, reader = (os.openpty if kind == "terminal" else lambda: os.pipe()[::-1])()
    with Peer() as peer, running("dial", "tcp", peer.address, stdin=reader) as process:
        conn = peer.accept()
        before = status_flags(reader)
        assert not before & os.O_NONBLOCK
        os.write(writer, b"one\n")
        assert peer.line() == b"one\n"
        conn.sendall(b"answer\n")
        while b"answer" not in process.stdout.readline():
            pass
        assert status_flags(reader) == before
        conn.close()
        assert finish(process)[0] == 0
        assert status_flags(reader) == before
    os.close(reader)
    os.close(writer)


# -- what is typed and what comes back -------------------------------------------------------------


def test_a_last_line_without_a_newline_gets_one():
    with echo_peer() as (peer, seen):
        done = gopoll("dial", "tcp", peer.address, way=PATIENT, input="one\ntwo")
    assert outcome(done) == (0, transcript("one", "two"), "")
    assert seen == [b"one\ntwo\n"]


def test_input_arrives_while_the_connection_is_idle():
    with Peer() as peer, running("dial", "tcp", peer.address) as process:
        conn = peer.accept()
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert peer.line() == line
            conn.sendall(line.upper())
            assert process.stdout.readline() == SEND.encode() + line
            assert process.stdout.readline() == MESSAGE.encode() + line.upper()
        process.stdin.close()
        assert peer.line() == b""


def test_what_nobody_asked_for_is_shown_and_the_prompt_again():
    with Peer() as peer, Terminal("dial", "tcp", peer.address) as terminal:
        conn = peer.accept()
        terminal.expect(SEND)
        conn.sendall(b"news\nmore news\n")
        assert terminal.expect(f"more news\n{SEND}") == (
            f"\n{MESSAGE}news\n{SEND}\n{MESSAGE}more news\n{SEND}"
        )


def test_a_message_that_comes_while_the_prompt_is_printed_redraws_it(monkeypatch):
    """Two goroutines print, and with many Ps at once: the prompt had been printed but not noted."""
    shown = []

    def say(text="", end="\n"):
        shown.append(text + end)
        if shown == [SEND]:
            thread.start()
            thread.join(0.05)  # it has to wait until the prompt is noted

    monkeypatch.setattr(client, "say", say)
    screen = client.Screen(True)
    thread = threading.Thread(target=screen.message, args=(b"news\n",))
    screen.prompt()
    thread.join(60)
    assert "".join(shown) == f"{SEND}\n{MESSAGE}news\n{SEND}"


def test_a_question_without_a_newline_is_shown_before_its_answer():
    with Peer() as peer, Terminal("dial", "tcp", peer.address) as terminal:
        conn = peer.accept()
        terminal.expect(SEND)
        conn.sendall(b"login: ")
        assert terminal.expect(SEND) == f"\n{MESSAGE}login: \n{SEND}"
        terminal.type(b"me\n")
        assert peer.line() == b"me\n"


def test_ctrl_d_after_a_piece_of_a_line_sends_it_as_cat_does():
    """It used to take three: the reader put the pieces together and asked for more."""
    with Peer() as peer, Terminal("dial", "tcp", peer.address) as terminal:
        conn = peer.accept()
        terminal.expect(SEND)
        terminal.type(b"one \x04")
        assert peer.take(4) == b"one "
        terminal.type(b"line\n")
        assert peer.take(5) == b"line\n"
        conn.sendall(b"two?\n")
        assert terminal.expect(SEND) == f"one line\n{MESSAGE}two?\n{SEND}"
        terminal.type(b"and\x04")
        assert peer.take(3) == b"and"
        conn.sendall(b"what\n")
        assert terminal.expect(SEND) == f"and\n{MESSAGE}what\n{SEND}"
        terminal.type(b"\x04")
        assert peer.line() == b"\n"  # what the server may wait for, then the end
        conn.sendall(b"bye\n")
        assert peer.line() == b""
        conn.close()
        assert terminal.finish() == (0, f"\n{MESSAGE}bye\n")


def test_a_server_that_never_answers_gets_all_lines():
    """The first line waits a second for its answer, the others not at all."""
    with Peer() as peer, running("dial", "tcp", peer.address, text=True) as process:
        conn = peer.accept()
        lines = "".join(f"{n}\n" for n in range(100))
        process.stdin.write(lines)
        process.stdin.close()
        assert peer.take(len(lines) + 1) == lines.encode()
        conn.sendall(b"thank you")
        conn.close()
        status = process.wait(60)
        out = process.stdout.read()
        assert (status, process.stderr.read()) == (0, "")
    assert out == "".join(f"{SEND}{n}\n" for n in range(100)) + f"{MESSAGE}thank you\n"


def test_a_huge_line_goes_in_pieces_and_comes_back_whole():
    line = b"z" * 300_000
    with echo_peer() as (peer, seen):
        done = gopoll("dial", "tcp", peer.address, input=line, text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert seen == [line + b"\n"]
    sent, back = said(done.stdout, SEND.encode()), said(done.stdout, MESSAGE.encode())
    assert b"".join(sent) == b"".join(back) == line
    assert len(sent) + len(back) == done.stdout.count(b"\n")


def test_a_piece_of_a_line_waits_for_no_answer():
    """It used to wait a second, and to lose its patience with the server for good."""
    seen = []
    with Peer() as peer:

        def serve():
            conn = peer.accept()
            while line := peer.line():
                seen.append(line)
                conn.sendall(b"%d bytes\n" % len(line))
            conn.close()

        thread = threading.Thread(target=serve)
        thread.start()
        text = "z" * 200_000 + "\ntwo\nthree\n"
        done = gopoll("dial", "tcp", peer.address, way=PATIENT, input=text)
        thread.join()
    assert (done.returncode, done.stderr) == (0, "")
    assert b"".join(seen) == text.encode()
    rest = done.stdout.partition(f"{MESSAGE}200001 bytes\n")[2]
    assert rest == f"{SEND}two\n{MESSAGE}4 bytes\n{SEND}three\n{MESSAGE}6 bytes\n"


def test_binary_input_arrives_as_it_is_and_is_shown_as_text():
    data = bytes(range(256))
    with echo_peer() as (peer, seen):
        done = gopoll("dial", "tcp", peer.address, input=data, text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert seen == [data + b"\n"]
    assert rb"\x00\x01" in done.stdout
    assert rb"\xfe\xff" in done.stdout
    assert set(done.stdout) <= set(range(32, 127)) | {9, 10}


def test_a_peer_cannot_steer_the_terminal():
    with Peer() as peer, running("dial", "tcp", peer.address, text=True) as process:
        conn = peer.accept()
        conn.sendall("\x1b[2J caf\xe9 \x07\r\n".encode() + b"\xff\n")
        conn.close()
        assert finish(process) == (0, f"{MESSAGE}\\x1b[2J caf\xe9 \\x07\n{MESSAGE}\\xff\n", "")


# -- how it ends -----------------------------------------------------------------------------------


def test_a_server_that_closes_early_leaves_input_behind():
    with Peer() as peer, running("dial", "tcp", peer.address, text=True) as process:
        conn = peer.accept()
        process.stdin.write("one\n")
        process.stdin.flush()
        assert peer.line() == b"one\n"
        process.stdin.write("two\nthree\n")
        process.stdin.flush()
        conn.sendall(b"bye\n")
        conn.shutdown(socket.SHUT_WR)
        status, out, err = finish(process)
    assert status == 1
    assert out.startswith(f"{SEND}one\n{MESSAGE}bye\n")
    assert err.startswith("gopoll: write tcp 127.0.0.1:")
    assert err.endswith(f"->{peer.address}: closed by the server before the end of the input\n")


def test_a_server_that_closes_an_idle_conversation_ends_it_well():
    with Peer() as peer, running("dial", "tcp", peer.address, text=True) as process:
        peer.accept().close()
        assert process.wait(60) == 0  # stdin is still open
        assert finish(process) == (0, "", "")


def test_a_server_that_closes_is_told_at_a_terminal():
    with Peer() as peer, Terminal("dial", "tcp", peer.address) as terminal:
        conn = peer.accept()
        terminal.expect(SEND)
        conn.close()
        text = f"\ngopoll: {peer.address} has closed the connection\n"
        assert terminal.finish() == (0, text)


@pytest.mark.parametrize("idle", [True, False])
def test_a_reset_is_one_line(idle):
    with Peer() as peer, running("dial", "tcp", peer.address, text=True) as process:
        peer.accept().sendall(b"up\n")
        assert process.stdout.readline() == f"{MESSAGE}up\n"  # else it is dial that meets it
        if not idle:
            process.stdin.write("one\n")
            process.stdin.flush()
            assert peer.line() == b"one\n"
        peer.reset()
        status, out, err = finish(process)
    assert (status, out) == (1, "" if idle else f"{SEND}one\n")
    assert err.startswith("gopoll: read tcp 127.0.0.1:")
    assert err.endswith(f"->{peer.address}: read: connection reset by peer\n")


def test_ctrl_c_at_the_prompt():
    with Peer() as peer, Terminal("dial", "tcp", peer.address) as terminal:
        peer.accept()
        terminal.expect(SEND)
        terminal.type(b"half a li")
        terminal.expect("half a li")
        terminal.type(b"\x03")
        status, shown = terminal.finish()
        assert peer.line() == b""
    assert status == 130
    assert shown.rstrip("\n") == "^C"


def test_sigint_on_a_pipe():
    with Peer() as peer, running("dial", "tcp", peer.address, text=True) as process:
        conn = peer.accept()
        conn.sendall(b"up\n")
        assert process.stdout.readline() == f"{MESSAGE}up\n"
        process.send_signal(signal.SIGINT)
        assert finish(process) == (130, "", "")


def test_a_reader_of_stdout_that_goes_away_ends_it():
    with Peer() as peer, running("dial", "tcp", peer.address, text=True) as process:
        conn = peer.accept()
        conn.sendall(b"one\n")
        assert process.stdout.readline() == f"{MESSAGE}one\n"
        process.stdout.close()
        conn.sendall(b"two\n")
        assert process.wait(60) == 1  # stdin is still open
        assert process.stderr.read() == ""
        assert peer.line() == b""


def test_dial_into_head_ends_without_a_word():
    line = 'yes hello | "$@" | head -n 1; exit "${PIPESTATUS[1]}"'
    with echo_peer() as (peer, _):
        done = shell(line, "dial", "tcp", peer.address)
    assert outcome(done) == (1, f"{SEND}hello\n", "")


def test_a_full_disk_is_one_line():
    with Peer() as peer, open("/dev/full", "w") as full:
        with running("dial", "tcp", peer.address, stdout=full, text=True) as process:
            peer.accept().sendall(b"one\n")
            assert process.wait(60) == 1  # stdin is still open
            assert process.stderr.read() == "gopoll: write stdout: no space left on device\n"


def test_without_stdout_it_still_sends():
    with echo_peer() as (peer, seen):
        done = shell('"$@" >&- < <(echo one; echo two)', "dial", "tcp", peer.address)
    assert outcome(done) == (0, "", "")
    assert seen == [b"one\ntwo\n"]
