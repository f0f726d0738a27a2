"""Datagrams and messages: operations with an address or ancillary data. See _fdmsg.pyx."""

from gopoll._fdop cimport Op, ReadIntoOp, WriteOp
from gopoll._fdvec cimport VecOp
from gopoll._sockaddr cimport sockaddr_storage, socklen_t


cdef class ReadFromOp(Op):
    cdef Py_ssize_t size

cdef class ReadIntoFromOp(ReadIntoOp):
    pass

cdef class RecvMsgOp(Op):
    cdef Py_ssize_t size
    cdef char *control         # room for ancillary data, NULL for none
    cdef size_t room
    cdef int flags

cdef class WriteToOp(WriteOp):
    cdef object addr           # as it was given
    cdef sockaddr_storage to
    cdef socklen_t length

cdef class SendMsgOp(VecOp):
    cdef object addr
    cdef sockaddr_storage to
    cdef socklen_t length      # 0: to the peer
    cdef char *control         # ancillary data, NULL for none
    cdef size_t room
    cdef int flags
    cdef int pack(self, object ancdata) except -1
