# The loops of cython_pair.py, without the GIL. Each returns the nanoseconds of one pair.
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport read, write

from jobserver_ffi cimport (
    jobserver_client_of, jobserver_import, jobserver_token, jobserver_token_acquire, jobserver_token_free,
    jobserver_token_new, jobserver_token_release,
)

jobserver_import()


cdef int64_t now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <int64_t>time.tv_sec * 1000000000 + time.tv_nsec


def floor(int read_fd, int write_fd, int pairs):
    cdef char byte
    cdef int64_t start
    cdef int64_t end
    with nogil:
        start = now()
        for _ in range(pairs):
            if read(read_fd, &byte, 1) != 1 or write(write_fd, &byte, 1) != 1:
                break
        end = now()
    return (end - start) / pairs


def acquire(client, int64_t timeout, int pairs):
    cdef jobserver_token *token = jobserver_token_new(jobserver_client_of(client))
    cdef int64_t serial = 0
    cdef int64_t start
    cdef int64_t end
    with nogil:
        start = now()
        for _ in range(pairs):
            serial = jobserver_token_acquire(token, timeout)
            serial = jobserver_token_release(token, serial)
            if serial != 0:
                break
        end = now()
    jobserver_token_free(token)
    if serial != 0:
        raise RuntimeError(f"the loop ended with {serial}")
    return (end - start) / pairs
