/* POSIX: making a pool, joining one, closing it. */
#include "posix.h"

#if !defined(_WIN32)

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobserver.h"

/*
 * The most tokens for one write to a pool that others made: their limit is not known, and many at once leave gaps in a
 * pipe's pages. With so few any 57,600 tokens fit into the 16 pages that a pipe has on Linux.
 */
#define JOINED_AT_ONCE 256

static jobserver_channel *channel_new(void) {
    jobserver_channel *channel = calloc(1, sizeof *channel);
    if (channel != NULL) {
        channel->read_fd = channel->write_fd = -1;
        channel->take_fd = channel->give_fd = -1;
        channel->spare_epoll = -1;
        channel->most_at_once = PIPE_BUF;
    }
    return channel;
}

static void close_if_open(int descriptor) {
    if (descriptor >= 0) {
        close(descriptor);
    }
}

void jobserver_channel_close(jobserver_channel *channel, bool remove) {
    if (remove) {
        jobserver_channel_remove(channel);
    }
    if (channel->owns_advertised) {
        close_if_open(channel->read_fd);
        close_if_open(channel->write_fd);
    }
    close_if_open(channel->take_fd);
    if (channel->give_fd != channel->take_fd) {
        close_if_open(channel->give_fd);
    }
    close_if_open(channel->spare_epoll);
    jobserver_fifo_free(channel->fifo);
    free(channel->path);
    free(channel);
}

void jobserver_channel_remove(jobserver_channel *channel) {
    if (channel->fifo != NULL) {
        jobserver_fifo_remove(channel->fifo);
    }
}

/* The sleepers' stacks are still there, though their threads are not. */
void jobserver_channel_forked(jobserver_channel *channel) {
    for (struct jobserver_sleeper *sleeper = channel->sleepers; sleeper != NULL; sleeper = sleeper->next) {
        close(sleeper->epoll);
    }
    close_if_open(channel->spare_epoll);
    channel->sleepers = NULL;
    channel->spare_epoll = -1;
    channel->lingers = false;
    channel->retired = false;
}

struct jobserver_pool jobserver_channel_pool(const jobserver_channel *channel) {
    return channel->pool;
}

void jobserver_channel_descriptors(const jobserver_channel *channel, int descriptors[2]) {
    descriptors[0] = channel->read_fd;
    descriptors[1] = channel->write_fd;
}

const char *jobserver_channel_path(const jobserver_channel *channel) {
    return channel->path;
}

int jobserver_above_standard(int descriptor) {
    if (descriptor < 0 || descriptor > STDERR_FILENO) {
        return descriptor;
    }
    int copy = fcntl(descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int error = errno;
    close(descriptor);
    errno = error;
    return copy;
}

bool jobserver_same_file(int one, int other) {
    struct stat first, second;
    return fstat(one, &first) == 0 && fstat(other, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

/* Finds out what the descriptor leads to. 0, or why it cannot be an end of a pool. */
static int identify(int descriptor, enum jobserver_channel_kind *kind, struct jobserver_pool *pool) {
    struct stat status;
    if (fstat(descriptor, &status) < 0) {
        return -errno;
    }
    if (S_ISFIFO(status.st_mode)) {
        *kind = JOBSERVER_PIPE;
    } else if (S_ISSOCK(status.st_mode)) {
        *kind = JOBSERVER_SOCKET;
    } else if (S_ISCHR(status.st_mode)) {
        *kind = JOBSERVER_DEVICE;
    } else {
        return JOBSERVER_NOT_A_PIPE;
    }
    pool->device = (uint64_t)status.st_dev;
    pool->number = (uint64_t)status.st_ino;
    return 0;
}

/* The same for both ends of a channel. The pool is what is read: two pipes may serve as one pool. */
static int identify_both(jobserver_channel *channel, int read_end, int write_end) {
    struct jobserver_pool written;
    int result = identify(read_end, &channel->kind, &channel->pool);
    return result < 0 ? result : identify(write_end, &channel->give_kind, &written);
}

int jobserver_channel_check(int descriptor, bool for_writing) {
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0) {
        return -errno;
    }
    enum jobserver_channel_kind kind;
    struct jobserver_pool pool;
    int result = identify(descriptor, &kind, &pool);
    if (result < 0) {
        return result;
    }
    int mode = flags & O_ACCMODE;
    bool right = mode == O_RDWR || mode == (for_writing ? O_WRONLY : O_RDONLY);
    return right ? 0 : JOBSERVER_WRONG_DIRECTION;
}

/* Puts the first tokens into a pool that was just made. JOBSERVER_LIMIT if they do not fit. */
static int add_tokens(jobserver_channel *channel, int limit) {
    unsigned char tokens[PIPE_BUF];
    memset(tokens, JOBSERVER_TOKEN_BYTE, sizeof tokens);
    int result = jobserver_system_make_room(channel, limit);
    for (int left = limit; result >= 0 && left > 0; left -= result) {
        size_t size = left < PIPE_BUF ? (size_t)left : PIPE_BUF;
        result = jobserver_channel_give(channel, tokens, size);
    }
    channel->most_at_once = jobserver_system_most_at_once(channel, limit);
    return result == -EAGAIN ? JOBSERVER_LIMIT : result < 0 ? result : 0;
}

/* The common end of all ways to make a channel: hands it to the caller, or closes it if `result` is an error. */
static int finish(jobserver_channel *channel, int result, jobserver_channel **out) {
    if (result < 0) {
        jobserver_channel_close(channel, true);
        return result;
    }
    channel->capacity = channel->kind == JOBSERVER_PIPE ? jobserver_system_capacity(channel) : 1;
    *out = channel;
    return 0;
}

int jobserver_channel_create_pipe(int limit, jobserver_channel **out) {
    jobserver_channel *channel = channel_new();
    if (channel == NULL) {
        return -ENOMEM;
    }
    int result = jobserver_system_pipe(channel);
    if (result == 0) {
        channel->owns_advertised = true;
        result = identify_both(channel, channel->read_fd, channel->write_fd);
    }
    if (result == 0) {
        jobserver_system_open_private(channel);
        result = add_tokens(channel, limit);
    }
    return finish(channel, result, out);
}

/* Opens channel->path and finds out what it is. */
static int open_path(jobserver_channel *channel) {
    int result = jobserver_system_open_path(channel);
    if (result < 0) {
        return result;
    }
    return identify_both(channel, channel->take_fd, channel->give_fd);
}

/* Opens the fifo that was just made for the channel and fills it. `result` is that of making it. */
static int fill_fifo(jobserver_channel *channel, int result, int limit, jobserver_channel **out) {
    if (result == 0) {
        result = open_path(channel);
    }
    if (result == 0) {
        result = add_tokens(channel, limit);
    }
    return finish(channel, result, out);
}

int jobserver_channel_create_fifo(const char *path, int limit, jobserver_channel **out) {
    jobserver_channel *channel = channel_new();
    if (channel == NULL) {
        return -ENOMEM;
    }
    return fill_fifo(channel, jobserver_fifo_create(path, &channel->fifo, &channel->path), limit, out);
}

int jobserver_channel_create_private_fifo(const char *directory, int limit, jobserver_channel **out) {
    jobserver_channel *channel = channel_new();
    if (channel == NULL) {
        return -ENOMEM;
    }
    return fill_fifo(channel, jobserver_fifo_create_private(directory, &channel->fifo, &channel->path), limit, out);
}

int jobserver_channel_open_path(const char *path, jobserver_channel **out) {
    jobserver_channel *channel = channel_new();
    if (channel == NULL) {
        return -ENOMEM;
    }
    channel->most_at_once = JOINED_AT_ONCE;
    channel->path = strdup(path);
    return finish(channel, channel->path == NULL ? -ENOMEM : open_path(channel), out);
}

int jobserver_channel_open_descriptors(int read_fd, int write_fd, jobserver_channel **out) {
    int result = jobserver_channel_check(read_fd, false);
    if (result == 0) {
        result = jobserver_channel_check(write_fd, true);
    }
    if (result < 0) {
        return result;
    }
    jobserver_channel *channel = channel_new();
    if (channel == NULL) {
        return -ENOMEM;
    }
    channel->read_fd = read_fd;
    channel->write_fd = write_fd;
    channel->most_at_once = JOINED_AT_ONCE;
    result = identify_both(channel, read_fd, write_fd);
    if (result == 0) {
        jobserver_system_open_private(channel);
    }
    return finish(channel, result, out);
}

/* Semaphores with names are Windows's. */
int jobserver_channel_create_semaphore(int limit, jobserver_channel **channel) {
    (void)limit, (void)channel;
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_channel_open_semaphore(const char *name, jobserver_channel **channel) {
    (void)name, (void)channel;
    return JOBSERVER_UNSUPPORTED;
}

#endif
