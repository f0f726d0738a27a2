"""Datagrams and messages: operations with an address or ancillary data. See _fdmsg.pyx."""

from libc.stdint cimport int64_t

from gopoll._fdop cimport Op, ReadIntoOp, WriteOp
from gopoll._fdvec cimport VecOp
from gopoll._park cimport ParkRequest
from gopoll._pollcache cimport pollServer
from gopoll._poller cimport Poller
from gopoll._sockaddr cimport sockaddr_storage, socklen_t
from gopoll._timers cimport TimerNode


cdef class ReadFromOp(Op):
    cdef Py_ssize_t size

cdef class ReadIntoFromOp(ReadIntoOp):
    pass

cdef class RecvMsgOp(Op):
    cdef Py_ssize_t size
    cdef char *control         # room for ancillary data, NULL for none
    cdef size_t room
    cdef int flags

cdef class Nap(ParkRequest):
    cdef Poller poller
    cdef pollServer *ps
    cdef TimerNode node        # its arg is the waiter
    cdef int64_t ns            # how long

cdef class WriteToOp(WriteOp):
    cdef object addr           # as it was given
    cdef sockaddr_storage to
    cdef socklen_t length
    cdef Nap nap

cdef class SendMsgOp(VecOp):
    cdef object addr
    cdef sockaddr_storage to
    cdef socklen_t length      # 0: to the peer
    cdef char *control         # ancillary data, NULL for none
    cdef size_t room
    cdef int flags
    cdef Nap nap
    cdef int pack(self, object ancdata) except -1
