# gopoll.embed.aio._timerheap: its functions are cdef, nothing here is visible to Python.
