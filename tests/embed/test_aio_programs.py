"""Real programs on EventLoop: aiohttp, uvicorn, httpx, redis-py and asyncpg, each with a server.

Servers are on loopback and end with the test. What is not installed is skipped (tests/skips.txt).
"""

import asyncio
import contextlib
import importlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from gopoll.embed import aio
from peers.servers import redis

SECONDS = 60
CLIENTS = 20


def needs(*names):
    """Import *names*, or skip: they are in the extra [embed-test]."""
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            pytest.skip(f"{name} is not installed (pip install {name})")
    return [importlib.import_module(name) for name in names]


def run(main):
    """Run *main* on our loop, within bounds."""

    async def bounded():
        async with asyncio.timeout(SECONDS):
            assert isinstance(asyncio.get_running_loop(), aio.EventLoop)
            return await main()

    return aio.run(bounded())


pytestmark = pytest.mark.filterwarnings("default")  # theirs are theirs


def test_aiohttp_client_and_server():
    aiohttp, web = needs("aiohttp", "aiohttp.web")

    async def main():
        async def echo(request):
            return web.Response(body=await request.read(), headers={"X-Way": request.path})

        async def talk(request):
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            async for message in ws:
                await ws.send_str(message.data.upper())
            return ws

        app = web.Application(client_max_size=1 << 24)
        app.add_routes([web.post("/{way:.*}", echo), web.get("/talk", talk)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        async with aiohttp.ClientSession() as session:

            async def post(i):
                body = os.urandom(1 + i * 50_000)
                async with session.post(f"{url}/n/{i}", data=body) as answer:
                    assert answer.headers["X-Way"] == f"/n/{i}"
                    assert await answer.read() == body

            await asyncio.gather(*map(post, range(CLIENTS)))
            async with session.ws_connect(f"{url}/talk") as ws:
                await ws.send_str("hello")
                assert await ws.receive_str() == "HELLO"
        await runner.cleanup()

    run(main)


async def app(scope, receive, send):
    """A small ASGI application: say what came."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(uvicorn, **options):
    """Run uvicorn in this loop; give its URL. No connection is left in the end."""
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", lifespan="off", ws="none", **options
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
            assert not server.server_state.connections
            assert not server.server_state.tasks


def test_uvicorn_under_httpx():
    uvicorn, httpx = needs("uvicorn", "httpx")

    async def main():
        async with serving(uvicorn) as url, httpx.AsyncClient(timeout=SECONDS) as client:

            async def post(i):
                body = os.urandom(1 + i * 30_000)
                answer = await client.post(url, content=body)
                assert answer.status_code == 200
                assert answer.content == body

            for _ in range(3):
                await asyncio.gather(*map(post, range(CLIENTS)))

    run(main)


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_uvicorn_under_wrk(http, caplog):
    uvicorn, _ = needs("uvicorn", http)
    if shutil.which("wrk") is None:
        pytest.skip("no wrk (apt-get install wrk)")
    heard = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        async with serving(uvicorn, http=http) as url:
            words = ("-t2", "-c64", "-d2s", f"--timeout={SECONDS}s", url)
            process = await asyncio.create_subprocess_exec("wrk", *words, stdout=subprocess.PIPE)
            out, _ = await process.communicate()
            assert process.returncode == 0
        return out.decode()

    out = run(main)
    served = re.search(r"(\d+) requests in", out)
    assert served, out
    assert int(served[1]) >= 64, out
    assert "Socket errors" not in out
    assert "Non-2xx" not in out
    assert not heard
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_redis_asyncio(tmp_path):
    (asyncio_redis,) = needs("redis.asyncio")
    with redis(tmp_path) as ((host, port), path):

        async def main():
            for where in ({"host": host, "port": port}, {"unix_socket_path": path}):
                async with asyncio_redis.Redis(**where) as client:
                    value = os.urandom(1 << 20)
                    await client.set("key", value)
                    assert await client.get("key") == value
                    counts = await asyncio.gather(*(client.incr("n") for _ in range(50)))
                    assert len(set(counts)) == 50
                    async with client.pubsub() as pubsub:
                        await pubsub.subscribe("c")
                        await client.publish("c", "news")
                        while True:
                            message = await pubsub.get_message(timeout=SECONDS)
                            if message and message["type"] == "message":
                                break
                        assert message["data"] == b"news"

        run(main)


@contextlib.contextmanager
def postgres():
    """Run an empty PostgreSQL; give the folder of its socket. It wants a user that is not root."""
    found = shutil.which("initdb") or max(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),  # where Debian has it
        key=lambda path: int(path.parts[-3]),
        default=None,
    )
    if found is None:
        pytest.skip("no PostgreSQL (apt-get install postgresql)")
    folder = Path(found).parent
    as_user = {}
    base = tempfile.mkdtemp(prefix="gopoll-pg-", dir="/tmp")
    if os.geteuid() == 0:
        try:
            as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(base, "postgres", "postgres")
        except LookupError:
            os.rmdir(base)
            pytest.skip("no user postgres (apt-get install postgresql)")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": base, **as_user}
    data = f"{base}/data"
    try:
        command = [folder / "initdb", "-D", data, "-A", "trust", "-U", "gopoll", "-N"]
        subprocess.run(command, check=True, timeout=SECONDS, **quiet)
        options = f"-c listen_addresses= -c unix_socket_directories={base} -c fsync=off"
        start = [folder / "pg_ctl", "-D", data, "-w", "-t", str(SECONDS), "-o", options, "start"]
        subprocess.run(start, check=True, timeout=SECONDS, **quiet)
        try:
            yield base
        finally:
            stop = [folder / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop"]
            subprocess.run(stop, check=True, timeout=SECONDS, **quiet)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.mark.timeout(3 * SECONDS)
def test_asyncpg():
    (asyncpg,) = needs("asyncpg")
    with postgres() as folder:

        async def main():
            where = {"host": folder, "user": "gopoll", "database": "postgres"}
            async with asyncpg.create_pool(**where, min_size=2, max_size=5) as pool:
                await pool.execute("create table t (i int primary key, b bytea)")
                rows = [(i, os.urandom(i * 100)) for i in range(500)]
                async with pool.acquire() as connection:
                    await connection.copy_records_to_table("t", records=rows)

                async def ask(i):
                    return await pool.fetchval("select b from t where i = $1", i)

                got = await asyncio.gather(*(ask(i) for i, _ in rows))
                assert got == [b for _, b in rows]
                with pytest.raises(TimeoutError):
                    await pool.execute("select pg_sleep(60)", timeout=0.05)
                assert await pool.fetchval("select count(*) from t") == 500

        run(main)
