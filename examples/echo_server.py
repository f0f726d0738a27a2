from contextlib import suppress

import gopoll


async def echo(conn):
    with suppress(OSError):
        async with conn:
            while data := await conn.read():
                await conn.write(data)


async def main():
    async with await gopoll.listen("tcp", "127.0.0.1:7000") as listener:
        async for conn in listener:
            gopoll.go(echo, conn)


gopoll.run(main)
