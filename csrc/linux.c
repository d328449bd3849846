/*
 * Linux: private descriptions of inherited pipes, exclusive wake-ups, reading without waiting.
 *
 * Opening /proc/self/fd/N of a pipe gives a description of its own (with its own status flags) of the same pipe. It
 * fails for another user's pipe, for sockets, and where /proc is not mounted.
 */
#include "posix.h"

#if defined(__linux__) && !defined(JOBSERVER_PORTABLE)

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "jobserver.h"

/* A partly read page at the front cannot be refilled until it is empty, so this much of a pipe may be out of use. */
#define PAGE_REST 4095

/* A new description of what the descriptor leads to, close-on-exec, or a negated errno. */
static int reopen(int descriptor, int flags) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    int fresh = open(path, flags | O_CLOEXEC | O_NOCTTY);
    if (fresh < 0) {
        return -errno;
    }
    if (!jobserver_same_file(descriptor, fresh)) {
        close(fresh);
        return -ENOENT;
    }
    return fresh;
}

/* The same, for reading that blocks. It is opened without blocking, since without a writer the open itself would. */
static int reopen_to_sleep(int descriptor) {
    int fresh = reopen(descriptor, O_RDONLY | O_NONBLOCK);
    if (fresh >= 0 && fcntl(fresh, F_SETFL, 0) < 0) {
        close(fresh);
        return -EINVAL;
    }
    return fresh;
}

int jobserver_system_pipe(jobserver_channel *channel) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return -errno;
    }
    channel->read_fd = ends[0];
    channel->write_fd = ends[1];
    return 0;
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

void jobserver_system_open_to_sleep(jobserver_channel *channel) {
    channel->sleep_fd = reopen_to_sleep(jobserver_channel_take_descriptor(channel));
}

int jobserver_system_open_path(jobserver_channel *channel) {
    int descriptor = open(channel->path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (descriptor < 0) {
        return -errno;
    }
    channel->take_fd = channel->give_fd = descriptor;
    return 0;
}

int jobserver_system_make_room(jobserver_channel *channel, int limit) {
    int64_t needed = (int64_t)limit + PAGE_REST;
    int descriptor = jobserver_channel_take_descriptor(channel);
    int size = fcntl(descriptor, F_GETPIPE_SZ);
    if (size >= needed) {
        return 0;
    }
    bool grown = size > 0 && needed <= INT32_MAX && fcntl(descriptor, F_SETPIPE_SZ, (int)needed) >= needed;
    return grown ? 0 : JOBSERVER_LIMIT;
}

size_t jobserver_channel_capacity(jobserver_channel *channel) {
    int size = fcntl(jobserver_channel_take_descriptor(channel), F_GETPIPE_SZ);
    return size > PAGE_REST ? (size_t)size - PAGE_REST : 1;
}

/* Whether the system knows no way to do this to such a description. */
static bool refused(void) {
    return errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL;
}

/* A pipe can be read without waiting whatever its flags say; a fifo only if it happens to be in that mode. */
int jobserver_system_read_shared(int descriptor, unsigned char *bytes, size_t size) {
    struct iovec buffer = {.iov_base = bytes, .iov_len = size};
    ssize_t count = preadv2(descriptor, &buffer, 1, -1, RWF_NOWAIT);
    if (count < 0 && refused()) {
        if (!(fcntl(descriptor, F_GETFL) & O_NONBLOCK)) {
            return JOBSERVER_UNSUPPORTED;
        }
        count = read(descriptor, bytes, size);
    }
    return count > 0 ? (int)count : count == 0 ? JOBSERVER_GONE : -errno;
}

int jobserver_system_write_shared(int descriptor, const unsigned char *bytes, size_t size) {
    struct iovec buffer = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    ssize_t count = pwritev2(descriptor, &buffer, 1, -1, RWF_NOWAIT);
    if (count < 0 && refused()) {
        return jobserver_write_if_ready(descriptor, bytes, size);
    }
    return count < 0 ? -errno : (int)count;
}

int jobserver_system_open_for_lock(const jobserver_channel *channel) {
    int lock = channel->kind == JOBSERVER_SOCKET
                   ? -ENXIO
                   : reopen(jobserver_channel_take_descriptor(channel), O_RDONLY | O_NONBLOCK);
    return lock < 0 ? JOBSERVER_UNSUPPORTED : lock;
}

/*
 * An epoll that is told exclusively of tokens: of all that watch a pool like this, one write wakes one. One that has
 * nobody sleeping in it passes the wake-up to the next.
 */
static int open_epoll(const jobserver_channel *channel) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) {
        return -errno;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, jobserver_channel_take_descriptor(channel), &event) < 0) {
        int error = -errno;
        close(epoll);
        return error;
    }
    return epoll;
}

/*
 * Each sleeper has an epoll of its own (the channel keeps one for the next), since several in one are woken one after
 * the other. Without one (no descriptors left, a device that cannot be watched) poll does, which wakes all.
 */
int jobserver_channel_wait(jobserver_channel *channel, int64_t deadline) {
    int epoll = atomic_exchange(&channel->spare_epoll, -1);
    if (epoll < 0) {
        epoll = open_epoll(channel);
    }
    if (epoll < 0) {
        return jobserver_poll(jobserver_channel_take_descriptor(channel), deadline);
    }
    struct epoll_event event;
    int count = epoll_wait(epoll, &event, 1, jobserver_milliseconds_left(deadline));
    int result = count < 0 ? -errno : count == 0 ? -ETIMEDOUT : 1;
    int none = -1;
    if (!atomic_compare_exchange_strong(&channel->spare_epoll, &none, epoll)) {
        close(epoll);
    }
    return result;
}

#endif
