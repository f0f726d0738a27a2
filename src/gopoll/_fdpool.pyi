# gopoll._fdpool: its functions are cdef, nothing here is visible to Python.
