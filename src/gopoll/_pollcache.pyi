# gopoll._pollcache: its functions are cdef, nothing here is visible to Python.
