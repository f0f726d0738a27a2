"""What Cython loops may cimport: API, with ABI_VERSION. Everything is noexcept nogil or a class."""

from gopoll._netpoll cimport NETPOLL_CAP, netpoll, netpolltimeout
from gopoll._park cimport ParkRequest
from gopoll._pollcache cimport (blockPark, modeBoth, modeRead, modeWrite, netpollabort,
                                netpollblockcommit, netpollcheckerr, netpollresume,
                                poll_runtime_pollClose, poll_runtime_pollOpen,
                                poll_runtime_pollReset, poll_runtime_pollUnblock,
                                poll_runtime_pollWait, pollDesc, pollDiscard, pollErrClosing,
                                pollErrNotPollable, pollErrTimeout, pollNoError, pollServer,
                                regEdge, regLevel, regOneshot)
from gopoll._polldeadline cimport poll_runtime_pollSetDeadline
from gopoll._pollserver cimport ready_push
from gopoll._polldesc cimport PollDesc, Timer
from gopoll._poller cimport ABI_VERSION, Poller
