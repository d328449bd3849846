"""Jobs in C, without the GIL, that run on tokens of a `Client` made in Python."""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, ETIMEDOUT
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from jobserver_ffi cimport (
    jobserver_client_of, jobserver_import,
    jobserver_token, jobserver_token_acquire, jobserver_token_free, jobserver_token_new, jobserver_token_release,
)

from jobserver_ffi.errors import check

jobserver_import()  # at import, before anything else; an ImportError if the installed package does not fit


cdef int64_t now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <int64_t>time.tv_sec * 1000000000 + time.tv_nsec


cdef int64_t acquire(jobserver_token *token, int64_t timeout) except 0 nogil:
    """Takes a token; lets Python run its signal handlers when a signal ends the wait. A serial, or -ETIMEDOUT."""
    cdef int64_t end = now() + timeout
    cdef int64_t serial = jobserver_token_acquire(token, timeout)
    while serial == -EINTR:
        with gil:
            PyErr_CheckSignals()  # which raises KeyboardInterrupt
        if timeout > 0:
            timeout = max(end - now(), <int64_t>0)
        serial = jobserver_token_acquire(token, timeout)
    return -ETIMEDOUT if serial == -EAGAIN else serial


def count_jobs(client, int jobs, double timeout=-1, double seconds=0):
    """Runs `jobs` jobs, each on a token of its own, and returns how many found one in time.

    Args:
        client: A `jobserver_ffi.Client`.
        jobs: How many, one after the other; call this from many threads.
        timeout: Seconds to wait for a token; negative for ever.
        seconds: How long a job takes.
    """
    cdef jobserver_token *token = jobserver_token_new(jobserver_client_of(client))
    if token == NULL:
        raise MemoryError
    cdef int64_t limit = -1 if timeout < 0 else <int64_t>(timeout * 1e9)
    cdef int64_t serial = 1
    cdef int done = 0
    cdef int64_t end
    try:
        with nogil:
            for _ in range(jobs):
                serial = acquire(token, limit)
                if serial == -ETIMEDOUT:
                    continue
                if serial < 0:
                    break
                end = now() + <int64_t>(seconds * 1e9)
                while now() < end:
                    pass
                done += 1
                serial = jobserver_token_release(token, serial)
                if serial < 0:
                    break
        if serial != -ETIMEDOUT:
            check(serial)
        return done
    finally:
        jobserver_token_free(token)  # gives back what it holds, whatever happened
