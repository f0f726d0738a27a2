# gopoll.embed.aio._calls: its functions are cdef, nothing here is visible to Python.
