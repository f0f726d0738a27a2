import asyncio

class TimerHandle(asyncio.TimerHandle):
    def cancel(self) -> None: ...
