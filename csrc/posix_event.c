/* POSIX: an event is a pipe, readable while the event is set. */
#include "posix.h"

#if !defined(_WIN32)

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

struct jobserver_event {
    int read_fd;
    int write_fd;
    unsigned generation; /* of the process that made it */
};

/* Makes a pipe that is private to this process and never blocks. 0 or a negated errno. */
static int open_pipe(int ends[2]) {
    if (pipe(ends) < 0) {
        return -errno;
    }
    for (int end = 0; end < 2; end++) {
        ends[end] = jobserver_above_standard(ends[end]);
        if (ends[end] < 0 || fcntl(ends[end], F_SETFD, FD_CLOEXEC) < 0 || fcntl(ends[end], F_SETFL, O_NONBLOCK) < 0) {
            int error = errno;
            close(ends[0]);
            close(ends[1]);
            return -error;
        }
    }
    return 0;
}

int jobserver_event_new(jobserver_event **out) {
    int ends[2];
    jobserver_platform_start(); /* which counts forks */
    jobserver_event *event = calloc(1, sizeof *event);
    int result = event == NULL ? -ENOMEM : open_pipe(ends);
    if (result < 0) {
        free(event);
        *out = NULL;
        return result;
    }
    event->read_fd = ends[0];
    event->write_fd = ends[1];
    event->generation = jobserver_generation();
    *out = event;
    return 0;
}

void jobserver_event_close(jobserver_event *event) {
    close(event->read_fd);
    close(event->write_fd);
}

void jobserver_event_free(jobserver_event *event) {
    jobserver_implicit_unwatch(event);
    jobserver_event_close(event);
    free(event);
}

/* A full pipe is set for long enough. In a forked child the pipe is still the parent's, who must not be woken. */
void jobserver_event_set(jobserver_event *event) {
    if (event->generation == jobserver_generation()) {
        while (write(event->write_fd, "", 1) < 0 && errno == EINTR) {
        }
    }
}

void jobserver_event_clear(jobserver_event *event) {
    char bytes[64];
    ssize_t count = sizeof bytes;
    while (event->generation == jobserver_generation() && (count == sizeof bytes || (count < 0 && errno == EINTR))) {
        count = read(event->read_fd, bytes, sizeof bytes);
    }
}

int jobserver_event_wait_until(jobserver_event *event, int64_t deadline) {
    struct jobserver_until until = {.deadline = deadline};
    return jobserver_poll(event->read_fd, &until);
}

int jobserver_event_wait(jobserver_event *event) {
    return jobserver_event_wait_until(event, -1);
}

intptr_t jobserver_event_waitable(const jobserver_event *event) {
    return event->read_fd;
}

#endif
