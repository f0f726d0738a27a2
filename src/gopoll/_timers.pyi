# gopoll._timers: its functions are cdef, nothing here is visible to Python.
