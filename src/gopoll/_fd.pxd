"""FD, which the net package's connections inherit. See _fd.pyx."""

from libc.stdint cimport int64_t

from gopoll._sysfd cimport SysFD


cdef class FD(SysFD):
    cdef object closing(self)
    cdef int64_t deadline_ns(self, int mode) except? -1
