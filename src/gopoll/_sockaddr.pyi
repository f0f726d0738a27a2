# gopoll._sockaddr: its functions are cdef, nothing here is visible to Python.
