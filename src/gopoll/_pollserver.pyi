# gopoll._pollserver: its functions are cdef, nothing here is visible to Python.
