/*
 * POSIX systems without Linux's ways: opening /dev/fd/N gives the same description again, so what was inherited has
 * no private one. Compiled on Linux too with JOBSERVER_PORTABLE, so that the code other systems run is tested.
 */
#include "posix.h"

#if !defined(_WIN32) && (!defined(__linux__) || defined(JOBSERVER_PORTABLE))

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "jobserver.h"

/* Opens the fifo once more, without blocking the open; then with the status flags that are wanted. */
static int open_end(const char *path, int mode, int status) {
    int descriptor = open(path, mode | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    descriptor = jobserver_above_standard(descriptor);
    if (descriptor >= 0 && status == 0 && fcntl(descriptor, F_SETFL, 0) < 0) {
        int error = errno;
        close(descriptor);
        return -error;
    }
    return descriptor < 0 ? -errno : descriptor;
}

/*
 * A pipe of our own is a fifo whose name is removed at once: only a fifo can be opened several times, to have
 * descriptions that are advertised and others that are private.
 */
int jobserver_system_pipe(jobserver_channel *channel) {
    struct jobserver_fifo *fifo;
    char *path;
    const char *directory = getenv("TMPDIR");
    int result = jobserver_fifo_create_private(directory != NULL ? directory : "/tmp", &fifo, &path);
    if (result < 0) {
        return result;
    }
    channel->take_fd = channel->give_fd = open_end(path, O_RDWR, O_NONBLOCK);
    channel->read_fd = open_end(path, O_RDONLY, 0);
    channel->write_fd = open_end(path, O_WRONLY, 0);
    jobserver_fifo_remove(fifo);
    jobserver_fifo_free(fifo);
    free(path);
    channel->owns_advertised = true;
    int worst = channel->take_fd < channel->read_fd ? channel->take_fd : channel->read_fd;
    worst = channel->write_fd < worst ? channel->write_fd : worst;
    return worst < 0 ? worst : 0;
}

void jobserver_system_open_private(jobserver_channel *channel) {
    (void)channel;
}

int jobserver_system_open_path(jobserver_channel *channel) {
    int descriptor = open_end(channel->path, O_RDWR, O_NONBLOCK);
    if (descriptor < 0) {
        return descriptor;
    }
    channel->take_fd = channel->give_fd = descriptor;
    return 0;
}

/* The size cannot be asked for: what does not fit is found out by filling the pool. */
int jobserver_system_make_room(jobserver_channel *channel, int limit) {
    (void)channel;
    (void)limit;
    return 0;
}

/* These systems fill a pipe without gaps. */
size_t jobserver_system_most_at_once(const jobserver_channel *channel, int limit) {
    (void)channel;
    (void)limit;
    return PIPE_BUF;
}

/* The least that a pipe of these systems holds. */
size_t jobserver_system_capacity(const jobserver_channel *channel) {
    (void)channel;
    return PIPE_BUF;
}

/* Between poll and read another process may take the token, and a blocking read would not come back. */
int jobserver_system_read_shared(int descriptor, unsigned char *bytes, size_t size) {
    if (!(fcntl(descriptor, F_GETFL) & O_NONBLOCK)) {
        return JOBSERVER_UNSUPPORTED;
    }
    ssize_t count = read(descriptor, bytes, size);
    return count > 0 ? (int)count : count == 0 ? JOBSERVER_GONE : -errno;
}

int jobserver_system_write_shared(int descriptor, const unsigned char *bytes, size_t size) {
    return jobserver_write_if_ready(descriptor, bytes, size);
}

int jobserver_system_open_lock(jobserver_channel *channel) {
    int lock = channel->path == NULL ? -1 : open_end(channel->path, O_RDONLY, O_NONBLOCK);
    return lock < 0 ? JOBSERVER_UNSUPPORTED : lock;
}

int jobserver_channel_wait(jobserver_channel *channel, const struct jobserver_until *until) {
    return jobserver_poll(jobserver_channel_take_descriptor(channel), until);
}

/* No wait puts anything off. */
void jobserver_system_linger_no_more(jobserver_channel *channel) {
    (void)channel;
}

/* Who is woken by poll has taken nobody's place. */
void jobserver_channel_retire(jobserver_channel *channel) {
    (void)channel;
}

#endif
