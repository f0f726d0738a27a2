"""nginx as a peer: requests over connections that are kept, large and chunked bodies, a proxy."""

import os
import re

import pytest

import gopoll
from net.certs import certs
from net.tools import short_folder
from peers.servers import nginx

MIB = 1 << 20


class Answer:
    """What a request has brought."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body


async def read_head(reader):
    """Return the first line of a message and its headers, names in lower case."""
    first = (await reader.read_line()).rstrip(b"\r\n").decode()
    headers = {}
    while line := (await reader.read_line()).rstrip(b"\r\n").decode():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return first, headers


async def read_body(reader, headers, *, until_the_end):
    """Return a body as its headers say: by length, in chunks, or up to the end of the stream."""
    if headers.get("transfer-encoding") == "chunked":
        pieces = []
        while size := int((await reader.read_line()).split(b";")[0], 16):
            pieces.append(await reader.read_exactly(size))
            assert await reader.read_line() == b"\r\n"
        assert await reader.read_line() == b"\r\n"
        return b"".join(pieces)
    if "content-length" in headers:
        return await reader.read_exactly(int(headers["content-length"]))
    pieces = []
    while until_the_end and (piece := await reader.read()):
        pieces.append(piece)
    return b"".join(pieces)


async def read_answer(reader, method="GET"):
    first, headers = await read_head(reader)
    status = int(re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first)[1])
    if method == "HEAD" or status in (204, 304):
        return Answer(status, headers, b"")
    return Answer(status, headers, await read_body(reader, headers, until_the_end=True))


def request(path, *lines, method="GET", version="1.1"):
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: here", *lines, "", ""]).encode()


async def fetch(conn, reader, path, *lines, method="GET", body=b"", version="1.1"):
    """Send a request and read its answer."""
    if body:
        lines = (*lines, f"Content-Length: {len(body)}")
    await conn.write(request(path, *lines, method=method, version=version))
    if body:
        writing = gopoll.go(conn.write, body)
        answer = await read_answer(reader, method)
        assert await writing == len(body)
        return answer
    return await read_answer(reader, method)


@pytest.fixture
def www(tmp_path):
    """Return a folder with a small file, a big one, and one that is sent in chunks."""
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "small").write_bytes(b"small\n")
    (folder / "big").write_bytes(os.urandom(8 * MIB))
    (folder / "page.shtml").write_text('<!--#echo var="uri" -->' + "x" * 300_000)
    return folder


# What has to be put together on the way has no length beforehand: it goes out in chunks.
CHUNKED = "location = /page.shtml { ssi on; ssi_types text/plain; }"


async def session(conn, www):
    """Everything that one connection can be asked, again and again."""
    reader = gopoll.Reader(conn)
    big = (www / "big").read_bytes()
    for start in range(3):
        for _ in range(50):
            answer = await fetch(conn, reader, "/small")
            assert (answer.status, answer.body) == (200, b"small\n")
        answer = await fetch(conn, reader, "/big")
        assert (answer.status, answer.body == big) == (200, True)
        answer = await fetch(conn, reader, "/big", f"Range: bytes={start}-{MIB}")
        assert (answer.status, answer.body == big[start : MIB + 1]) == (206, True)
        answer = await fetch(conn, reader, "/big", method="HEAD")
        assert int(answer.headers["content-length"]) == len(big)
        since = answer.headers["last-modified"]
        answer = await fetch(conn, reader, "/big", f"If-Modified-Since: {since}")
        assert (answer.status, answer.body) == (304, b"")
        answer = await fetch(conn, reader, "/page.shtml")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.body == b"/page.shtml" + b"x" * 300_000
        answer = await fetch(conn, reader, "/nothing")
        assert answer.status == 404
        assert answer.headers["connection"] == "keep-alive"
    answer = await fetch(conn, reader, "/small", "Connection: close")
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await reader.read() == b""


@pytest.mark.parametrize("network", ["tcp", "unix"])
def test_one_connection_serves_many_requests_and_is_closed_when_asked(run, tmp_path, www, network):
    async def main(address):
        async with await gopoll.dial(network, address) as conn:
            await session(conn, www)

    with short_folder() as folder:
        unix = f"{folder}/nginx" if network == "unix" else None
        with nginx(tmp_path, CHUNKED, unix=unix) as address:
            run(main, address)


def test_the_same_over_tls(run, tmp_path, www):
    """With a certificate that is checked; the end of the last answer is announced."""

    async def main(address):
        conn = await gopoll.dial("tcp", address)
        ctx = certs().client_context()
        async with await gopoll.tls.client(conn, ctx, server_hostname="localhost") as conn:
            await session(conn, www)

    files = (certs().server, certs().key("server"))
    with nginx(tmp_path, CHUNKED, tls=files) as address:
        run(main, address)


def test_pipelined_requests_are_answered_in_order(run, tmp_path, www):
    for i in range(300):
        (www / f"{i}").write_text(f"body {i} " * i)

    async def main(address):
        async with await gopoll.dial("tcp", address) as conn:
            reader = gopoll.Reader(conn)
            writing = gopoll.go(conn.write, b"".join(request(f"/{i}") for i in range(300)))
            for i in range(300):
                answer = await read_answer(reader)
                assert (answer.status, answer.body.decode()) == (200, f"body {i} " * i)
            await writing

    with nginx(tmp_path, "") as address:
        run(main, address)


@pytest.mark.parametrize("procs", [1, 4])
def test_fifty_connections_at_once(run, tmp_path, www, procs):
    big = (www / "big").read_bytes()[:MIB]
    (www / "mib").write_bytes(big)

    async def client(address):
        async with await gopoll.dial("tcp", address) as conn:
            reader = gopoll.Reader(conn)
            for _ in range(10):
                assert (await fetch(conn, reader, "/small")).body == b"small\n"
            assert (await fetch(conn, reader, "/mib")).body == big

    async def main(address):
        async with gopoll.Group() as tg:
            for _ in range(50):
                tg.go(client, address)

    with nginx(tmp_path, "") as address:
        run(main, address, procs=procs)


def test_a_body_without_a_length_lasts_until_the_end_of_the_stream(run, tmp_path, www):
    """HTTP/1.0 and something put together on the way: only the close tells the end."""

    async def main(address):
        async with await gopoll.dial("tcp", address) as conn:
            answer = await fetch(conn, gopoll.Reader(conn), "/page.shtml", version="1.0")
            assert not {"content-length", "transfer-encoding"} & set(answer.headers)
            assert answer.body == b"/page.shtml" + b"x" * 300_000

    with nginx(tmp_path, CHUNKED) as address:
        run(main, address)


def test_a_server_that_tires_of_a_connection_ends_it(run, tmp_path, www):
    """After so many requests, and after a silence."""

    async def main(address):
        async with await gopoll.dial("tcp", address) as conn:
            reader = gopoll.Reader(conn)
            for i in range(5):
                answer = await fetch(conn, reader, "/few/small")
                assert answer.headers["connection"] == ("keep-alive" if i < 4 else "close")
            assert await reader.read() == b""
        async with await gopoll.dial("tcp", address) as conn:
            reader = gopoll.Reader(conn)
            assert (await fetch(conn, reader, "/brief/small")).status == 200
            assert await reader.read() == b""

    (www / "few").symlink_to(www)
    (www / "brief").symlink_to(www)
    locations = "location /few/ { keepalive_requests 5; } location /brief/ { keepalive_timeout 1; }"
    with nginx(tmp_path, locations) as address:
        run(main, address)


def test_nginx_hands_requests_on_to_a_server_on_gopoll_and_its_answers_back(run, tmp_path):
    """A connection in and one out, each kept: the body comes in chunks and goes back in chunks."""

    async def answer(conn):
        async with conn:
            reader = gopoll.Reader(conn)
            while await reader.peek(1):
                first, headers = await read_head(reader)
                body = await read_body(reader, headers, until_the_end=False)
                head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                await conn.write(head.encode())
                for piece in (first.encode(), b"\n", body):
                    if piece:
                        await conn.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
                await conn.write(b"0\r\n\r\n")

    async def serve(listener, accepted):
        async for conn in listener:
            accepted.append(gopoll.go(answer, conn))

    async def client(address):
        async with await gopoll.dial("tcp", address) as conn:
            reader = gopoll.Reader(conn)
            for size in (0, 1, 100_000, 4 * MIB):
                body = os.urandom(size)
                method = "POST" if body else "GET"
                got = await fetch(conn, reader, "/up/x", method=method, body=body)
                assert got.status == 200
                assert got.body == f"{method} /up/x HTTP/1.1\n".encode() + body

    async def main():
        accepted = []
        async with await gopoll.listen("tcp", "127.0.0.1:0") as upstream:
            serving = gopoll.go(serve, upstream, accepted)
            locations = (
                f"location /up/ {{ proxy_pass http://127.0.0.1:{upstream.addr[1]}; "
                'proxy_http_version 1.1; proxy_set_header Connection ""; }'
            )
            with nginx(tmp_path, locations) as address:
                for g in [gopoll.go(client, address) for _ in range(5)]:
                    await g
            for g in accepted:  # nginx is gone and so are its connections
                await g
        await serving
        assert len(accepted) >= 5

    run(main)
