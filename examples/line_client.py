"""A line-based client: send what is typed line by line, print the answer to each line.

usage: python line_client.py [ADDR]    (127.0.0.1:7000, where echo_server.py listens)
"""

import sys

import gopoll


async def main(address):
    async with await gopoll.dial("tcp", address, timeout=5) as conn:
        answers = gopoll.Reader(conn)
        while True:
            print("Text to send: ", end="", flush=True)
            line = await gopoll.blocking(sys.stdin.buffer.readline)
            if not line:
                break
            conn.set_timeout(10)  # for this exchange: a deadline is moved, not made anew
            await conn.write(line)
            answer = await answers.read_line()
            print("Message from server:", answer.decode().rstrip())
        print()


try:
    gopoll.run(main, *(sys.argv[1:2] or ["127.0.0.1:7000"]))
except (OSError, KeyboardInterrupt) as error:
    sys.exit(f"line_client: {error}" if isinstance(error, OSError) else 130)
