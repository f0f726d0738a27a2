"""The operations of _fdsock.pyx."""

from gopoll._fdop cimport Op

cdef class AcceptOp(Op):
    pass

cdef class ConnectOp(Op):
    pass
