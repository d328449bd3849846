/* POSIX: moving tokens, counting them, waiting for them. */
#include "posix.h"

#if !defined(_WIN32)

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "jobserver.h"

/* Linux and FreeBSD have it; elsewhere SIGPIPE is the program's to ignore, as with pipes. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

int jobserver_channel_take_descriptor(const jobserver_channel *channel) {
    return channel->take_fd >= 0 ? channel->take_fd : channel->read_fd;
}

/* Whether the far end of a socket, or the server of a device, is not there any more. */
static bool far_end_is_gone(void) {
    return errno == ECONNRESET || errno == ECONNABORTED || errno == ENOTCONN;
}

/* The result of a system call that reads: how many bytes, JOBSERVER_GONE at the end of file, or a negated errno. */
static int read_result(ssize_t count) {
    if (count > 0) {
        return (int)count;
    }
    return count == 0 || far_end_is_gone() ? JOBSERVER_GONE : errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

/* Most bytes for one call, so that its result fits into an int. */
static size_t at_most(size_t size) {
    return size < INT_MAX ? size : INT_MAX;
}

int jobserver_channel_take(jobserver_channel *channel, unsigned char *bytes, size_t size) {
    ssize_t count;
    do {
        if (channel->kind == JOBSERVER_SOCKET) {
            count = recv(channel->read_fd, bytes, at_most(size), MSG_DONTWAIT);
        } else if (channel->take_fd >= 0) {
            count = read(channel->take_fd, bytes, at_most(size));
        } else {
            return jobserver_system_read_shared(channel->read_fd, bytes, at_most(size));
        }
    } while (count < 0 && errno == EINTR);
    return read_result(count);
}

int jobserver_channel_take_sleeping(jobserver_channel *channel, unsigned char *bytes, size_t size) {
    return read_result(read(channel->read_fd, bytes, at_most(size)));
}

/* One system call that writes. A socket or a device gets its tokens one by one, as a server of tokens counts them. */
static ssize_t write_some(jobserver_channel *channel, const unsigned char *bytes, size_t size) {
    if (channel->give_kind == JOBSERVER_SOCKET) {
        return send(channel->write_fd, bytes, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    size = channel->give_kind == JOBSERVER_DEVICE ? 1 : size;
    if (channel->give_fd >= 0) {
        return write(channel->give_fd, bytes, size);
    }
    int result = jobserver_system_write_shared(channel->write_fd, bytes, size);
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return result;
}

/* The same, whatever signals come in between. How many went in, or a negated errno. */
static int give_some(jobserver_channel *channel, const unsigned char *bytes, size_t size) {
    ssize_t count;
    do {
        count = write_some(channel, bytes, size);
    } while (count < 0 && errno == EINTR);
    if (count >= 0) {
        return (int)count;
    }
    return errno == EWOULDBLOCK ? -EAGAIN : far_end_is_gone() ? -EPIPE : -errno;
}

/* Where there is no room for many at once there may be room for one: a write of many goes in whole or not at all. */
int jobserver_channel_give(jobserver_channel *channel, const unsigned char *bytes, size_t size) {
    size = size < channel->most_at_once ? size : channel->most_at_once;
    int result = give_some(channel, bytes, size);
    result = result == -EAGAIN && size > 1 ? give_some(channel, bytes, 1) : result;
    if (atomic_load_explicit(&channel->lingers, memory_order_relaxed)) {
        jobserver_system_linger_no_more(channel);
    }
    return result;
}

size_t jobserver_channel_capacity(const jobserver_channel *channel) {
    return channel->capacity;
}

int jobserver_channel_available(jobserver_channel *channel) {
    int count = 0;
    if (ioctl(jobserver_channel_take_descriptor(channel), FIONREAD, &count) < 0) {
        return errno == ENOTTY || errno == EINVAL || errno == ENOSYS ? JOBSERVER_UNSUPPORTED : -errno;
    }
    return count;
}

/* Sleeps in poll with room for one entry more than there are others. */
static int poll_entries(struct pollfd *entries, int descriptor, const struct jobserver_until *until) {
    entries[0] = (struct pollfd){.fd = descriptor, .events = POLLIN};
    for (int index = 0; index < until->count; index++) {
        entries[index + 1] = (struct pollfd){.fd = (int)until->others[index], .events = POLLIN};
    }
    int count = poll(entries, (nfds_t)until->count + 1, jobserver_milliseconds_left(until->deadline));
    if (count < 0) {
        return -errno;
    }
    if (count == 0) {
        return jobserver_nothing_until(until->deadline);
    }
    return entries[0].revents != 0 ? 0 : JOBSERVER_READY;
}

int jobserver_poll(int descriptor, const struct jobserver_until *until) {
    struct pollfd few[8];
    if ((size_t)until->count < sizeof few / sizeof *few) {
        return poll_entries(few, descriptor, until);
    }
    struct pollfd *many = calloc((size_t)until->count + 1, sizeof *many);
    int result = many == NULL ? -ENOMEM : poll_entries(many, descriptor, until);
    free(many);
    return result;
}

int jobserver_write_if_ready(int descriptor, const unsigned char *bytes, size_t size) {
    struct pollfd entry = {.fd = descriptor, .events = POLLOUT};
    if (!(fcntl(descriptor, F_GETFL) & O_NONBLOCK)) {
        int ready = poll(&entry, 1, 0);
        if (ready <= 0) {
            return ready < 0 ? -errno : -EAGAIN;
        }
    }
    ssize_t count = write(descriptor, bytes, size);
    return count < 0 ? -errno : (int)count;
}

#endif
