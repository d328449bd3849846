/*
 * Linux: private descriptions of inherited pipes, reading without waiting, and what fits into a pipe.
 *
 * Opening /proc/self/fd/N of a pipe gives a description of its own (with its own status flags) of the same pipe. It
 * fails for another user's pipe, for sockets, and where /proc is not mounted.
 */
#include "posix.h"

#if defined(__linux__) && !defined(JOBSERVER_PORTABLE)

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "jobserver.h"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

/* A new description of what the descriptor leads to, close-on-exec, or a negated errno. */
static int reopen(int descriptor, int flags) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    int fresh = jobserver_above_standard(open(path, flags | O_CLOEXEC | O_NOCTTY));
    if (fresh < 0) {
        return -errno;
    }
    if (!jobserver_same_file(descriptor, fresh)) {
        close(fresh);
        return -ENOENT;
    }
    return fresh;
}

int jobserver_system_pipe(jobserver_channel *channel) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return -errno;
    }
    channel->owns_advertised = true;
    channel->read_fd = jobserver_above_standard(ends[0]);
    channel->write_fd = jobserver_above_standard(ends[1]);
    return channel->read_fd < 0 || channel->write_fd < 0 ? -errno : 0;
}

/*
 * One description serves for taking and giving where both ends are one file: a device that counts the tokens of each
 * description must see the same one return what it took.
 */
void jobserver_system_open_private(jobserver_channel *channel) {
    if (jobserver_same_file(channel->read_fd, channel->write_fd)) {
        channel->take_fd = channel->give_fd = reopen(channel->read_fd, O_RDWR | O_NONBLOCK);
    } else {
        channel->take_fd = reopen(channel->read_fd, O_RDONLY | O_NONBLOCK);
        channel->give_fd = reopen(channel->write_fd, O_WRONLY | O_NONBLOCK);
    }
}

int jobserver_system_open_path(jobserver_channel *channel) {
    int descriptor = jobserver_above_standard(open(channel->path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (descriptor < 0) {
        return -errno;
    }
    channel->take_fd = channel->give_fd = descriptor;
    return 0;
}

static int pipe_size(const jobserver_channel *channel) {
    return fcntl(jobserver_channel_take_descriptor(channel), F_GETPIPE_SZ);
}

/*
 * A page that is partly read, at the front, cannot be written to again until it is empty. So all of a pool's tokens
 * must fit into the other pages.
 */
static int page_size(void) {
    return (int)sysconf(_SC_PAGESIZE);
}

int jobserver_system_make_room(jobserver_channel *channel, int limit) {
    int64_t needed = (int64_t)limit + page_size() - 1;
    int size = pipe_size(channel);
    if (size >= needed) {
        return 0;
    }
    int descriptor = jobserver_channel_take_descriptor(channel);
    bool grown = size > 0 && needed <= INT_MAX && fcntl(descriptor, F_SETPIPE_SZ, (int)needed) >= needed;
    return grown ? 0 : JOBSERVER_LIMIT;
}

/*
 * A write that does not fit into what is left of the last page goes into a new one. Writes of at most `page - share + 1`
 * leave no page with less than its share, so the pages behind the front one hold the limit.
 */
size_t jobserver_system_most_at_once(const jobserver_channel *channel, int limit) {
    int page = page_size();
    int behind = pipe_size(channel) / page - 1;
    if (behind < 1) {
        return 1;
    }
    int share = (int)(((int64_t)limit + behind - 1) / behind);
    int most = share > page ? 1 : page - share + 1;
    return most < PIPE_BUF ? (size_t)most : PIPE_BUF;
}

size_t jobserver_system_capacity(const jobserver_channel *channel) {
    int size = pipe_size(channel);
    return size >= page_size() ? (size_t)(size - page_size() + 1) : 1;
}

/* Whether the system knows no way to do this to such a description. */
static bool refused(void) {
    return errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL;
}

/* preadv2 and pwritev2 at no position, which older C libraries do not have. */
static ssize_t without_waiting(long call, int descriptor, const struct iovec *buffer) {
    return syscall(call, descriptor, buffer, 1L, -1L, -1L, (long)RWF_NOWAIT);
}

/* A pipe can be read without waiting whatever its flags say; a fifo only if it happens to be in that mode. */
__attribute__((noinline)) int jobserver_system_read_shared(int descriptor, unsigned char *bytes, size_t size) {
    struct iovec buffer = {.iov_base = bytes, .iov_len = size};
    ssize_t count = without_waiting(SYS_preadv2, descriptor, &buffer);
    if (count < 0 && refused()) {
        if (!(fcntl(descriptor, F_GETFL) & O_NONBLOCK)) {
            return JOBSERVER_UNSUPPORTED;
        }
        count = read(descriptor, bytes, size);
    }
    return count > 0 ? (int)count : count == 0 ? JOBSERVER_GONE : -errno;
}

__attribute__((noinline)) int jobserver_system_write_shared(int descriptor, const unsigned char *bytes, size_t size) {
    struct iovec buffer = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    ssize_t count = without_waiting(SYS_pwritev2, descriptor, &buffer);
    if (count < 0 && refused()) {
        return jobserver_write_if_ready(descriptor, bytes, size);
    }
    return count < 0 ? -errno : (int)count;
}

int jobserver_system_open_lock(jobserver_channel *channel) {
    int lock = reopen(jobserver_channel_take_descriptor(channel), O_RDONLY | O_NONBLOCK);
    return lock < 0 ? JOBSERVER_UNSUPPORTED : lock;
}

#endif
