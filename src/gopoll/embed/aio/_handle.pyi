# gopoll.embed.aio._handle: its functions are cdef, nothing here is visible to Python.
