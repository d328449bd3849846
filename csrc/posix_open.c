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

static jobserver_channel *channel_new(void) {
    jobserver_channel *channel = calloc(1, sizeof *channel);
    if (channel != NULL) {
        channel->read_fd = channel->write_fd = -1;
        channel->sleep_fd = channel->take_fd = channel->give_fd = -1;
        channel->spare_epoll = -1;
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
    close_if_open(channel->sleep_fd);
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

void jobserver_channel_forked(jobserver_channel *channel) {
    close_if_open(atomic_exchange(&channel->spare_epoll, -1));
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

bool jobserver_same_file(int one, int other) {
    struct stat first, second;
    return fstat(one, &first) == 0 && fstat(other, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

/* Finds out what the descriptor leads to. 0, or why it cannot be a pool. */
static int identify(int descriptor, jobserver_channel *channel) {
    struct stat status;
    if (fstat(descriptor, &status) < 0) {
        return -errno;
    }
    if (S_ISFIFO(status.st_mode)) {
        channel->kind = JOBSERVER_PIPE;
    } else if (S_ISSOCK(status.st_mode)) {
        channel->kind = JOBSERVER_SOCKET;
    } else if (S_ISCHR(status.st_mode)) {
        channel->kind = JOBSERVER_DEVICE;
    } else {
        return JOBSERVER_NOT_A_PIPE;
    }
    channel->pool.device = (uint64_t)status.st_dev;
    channel->pool.number = (uint64_t)status.st_ino;
    return 0;
}

int jobserver_channel_check(int descriptor, bool for_writing) {
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0) {
        return -errno;
    }
    jobserver_channel found;
    int result = identify(descriptor, &found);
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
    while (result >= 0 && limit > 0) {
        size_t size = limit < PIPE_BUF ? (size_t)limit : PIPE_BUF;
        result = jobserver_channel_give(channel, tokens, size);
        limit -= result;
    }
    return result == -EAGAIN ? JOBSERVER_LIMIT : result < 0 ? result : 0;
}

/* The common end of all ways to make a channel: hands it to the caller, or closes it if `result` is an error. */
static int finish(jobserver_channel *channel, int result, jobserver_channel **out) {
    if (result < 0) {
        jobserver_channel_close(channel, true);
        return result;
    }
    *out = channel;
    return 0;
}

/* Opens the private descriptions of a channel that is advertised by descriptors. */
static void open_private(jobserver_channel *channel) {
    if (channel->kind != JOBSERVER_SOCKET) {
        jobserver_system_open_private(channel);
    }
    if (channel->kind == JOBSERVER_PIPE) {
        jobserver_system_open_to_sleep(channel);
    }
}

int jobserver_channel_create_pipe(int limit, jobserver_channel **out) {
    jobserver_channel *channel = channel_new();
    if (channel == NULL) {
        return -ENOMEM;
    }
    int result = jobserver_system_pipe(channel);
    if (result == 0) {
        channel->owns_advertised = true;
        result = identify(channel->read_fd, channel);
    }
    if (result == 0) {
        open_private(channel);
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
    result = identify(channel->take_fd, channel);
    if (result == 0 && channel->kind == JOBSERVER_PIPE) {
        jobserver_system_open_to_sleep(channel);
    }
    return result;
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
    result = identify(read_fd, channel);
    if (result == 0) {
        open_private(channel);
    }
    return finish(channel, result, out);
}

#endif
