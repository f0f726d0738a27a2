"""What Cython loops may cimport: API, with ABI_VERSION. Everything is noexcept nogil or a class.

How to use it: docs/embedding.md and examples/embed_cython. A module that cimports this compares
the number it was compiled with to the installed one before it takes anything else from gopoll.
"""

from gopoll._epoll cimport netpollBreak
from gopoll._netpoll cimport NETPOLL_CAP, netpoll, netpolltimeout
from gopoll._park cimport ParkRequest
from gopoll._pollcache cimport (blockPark, modeBoth, modeRead, modeWrite, netpollabort,
                                netpollblockcommit, netpollcheckerr, netpollresume, pollRearm,
                                poll_runtime_pollClose, poll_runtime_pollOpen,
                                poll_runtime_pollReset, poll_runtime_pollUnblock,
                                poll_runtime_pollWait, pollDesc, pollDiscard, pollErrClosing,
                                pollErrNotPollable, pollErrTimeout, pollNoError, pollServer,
                                regEdge, regLevel, regOneshot)
from gopoll._polldeadline cimport poll_runtime_pollSetDeadline
from gopoll._pollserver cimport netpollGenericInit, ready_push
from gopoll._polldesc cimport PollDesc, Timer
from gopoll._poller cimport ABI_VERSION, Poller
from gopoll._timers cimport nanotime


# Cython looks at what it takes from gopoll, and at signatures and sizes, before the first line of
# the module runs: a check that the module calls would come too late, after a TypeError that names
# no version. So it hangs on the import that comes before that. The macro stands in the module
# that cimports this alone; gopoll's own modules cimport below it.
cdef extern from *:
    """
    CYTHON_UNUSED static int gopoll_check_abi(int built) {
        static int agrees = 0;
        PyObject *poller, *number;
        long installed;
        if (agrees)
            return 0;
        poller = PyImport_ImportModule("gopoll._poller");
        if (poller == NULL)
            return -1;
        number = PyObject_GetAttrString(poller, "ABI");
        Py_DECREF(poller);
        if (number == NULL)
            return -1;
        installed = PyLong_AsLong(number);
        Py_DECREF(number);
        if (installed == -1 && PyErr_Occurred())
            return -1;
        if (installed != built) {
            PyErr_Format(PyExc_ImportError,
                         "compiled against gopoll ABI %d, but ABI %ld is installed: "
                         "compile this extension again beside the installed gopoll, or "
                         "install a gopoll of ABI %d", built, installed, built);
            return -1;
        }
        agrees = 1;
        return 0;
    }

    CYTHON_UNUSED static PyObject *gopoll_import(const char *name, int built) {
        if (strncmp(name, "gopoll", 6) == 0 && (name[6] == '.' || name[6] == 0))
            if (gopoll_check_abi(built) != 0)
                return NULL;
        return PyImport_ImportModule(name);
    }

    #define PyImport_ImportModule(name) gopoll_import((name), GOPOLL_ABI_VERSION)
    """
    int gopoll_check_abi(int built) except -1
