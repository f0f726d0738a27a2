"""FD, which the net package's connections inherit. See _fd.pyx."""

from gopoll._sysfd cimport SysFD


cdef class FD(SysFD):
    cdef object closing(self)
