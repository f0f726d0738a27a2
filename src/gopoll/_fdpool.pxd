"""Reads and writes that have ended, kept for the next. See _fdpool.pyx."""

from gopoll._fdop cimport ReadIntoOp, ReadOp, WriteOp

cdef ReadOp new_read()
cdef ReadIntoOp new_readinto()
cdef WriteOp new_write()
