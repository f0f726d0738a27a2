# gopoll._polldeadline: its functions are cdef, nothing here is visible to Python.
