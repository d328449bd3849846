/*
 * POSIX: the pipes of a lease. All of them are fifos, also those that a child gets as descriptors: only a fifo can be
 * opened several times, so that the broker's descriptions do not block and the child's do.
 */
#include "posix.h"

#if !defined(_WIN32)

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker_platform.h"
#include "jobserver.h"

#define LONGEST_NAME 32

int jobserver_lease_directory_open(const char *parent, struct jobserver_directory **directory) {
    return jobserver_directory_create(parent, directory);
}

void jobserver_lease_directory_close(struct jobserver_directory *directory, bool remove) {
    if (remove) {
        jobserver_directory_remove(directory);
    }
    jobserver_directory_free(directory);
}

int jobserver_lease_directory_lock(const struct jobserver_directory *directory) {
    return jobserver_directory_lock(directory);
}

bool jobserver_has_exited(int process) {
    siginfo_t found = {.si_pid = 0};
    if (waitid(P_PID, (id_t)process, &found, WEXITED | WNOHANG | WNOWAIT) < 0) {
        return errno == ECHILD;
    }
    return found.si_pid != 0;
}

static void close_and_forget(int *descriptor) {
    if (*descriptor >= 0) {
        close(*descriptor);
    }
    *descriptor = -1;
}

/* Opens the fifo once more, above the standard streams. The open never blocks, reads and writes do if `blocking`. */
static int open_end(const char *path, int mode, bool blocking) {
    int descriptor = jobserver_above_standard(open(path, mode | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (descriptor < 0) {
        return -errno;
    }
    if (blocking && fcntl(descriptor, F_SETFL, 0) < 0) {
        int error = errno;
        close(descriptor);
        return -error;
    }
    return descriptor;
}

/* Makes a fifo and opens it for the broker. The path is the caller's to free, also after a failure. */
static int make_fifo(struct jobserver_directory *directory, const char *kind, unsigned number, char **path, int *end) {
    char name[LONGEST_NAME];
    snprintf(name, sizeof name, "%s%u", kind, number);
    *path = jobserver_join_path(jobserver_directory_path(directory), name);
    if (*path == NULL) {
        return -ENOMEM;
    }
    if (mkfifo(*path, 0600) < 0) {
        return -errno;
    }
    *end = open_end(*path, O_RDWR, false);
    if (*end < 0) {
        unlink(*path);
        return *end;
    }
    return 0;
}

/*
 * A fifo that has lost its name, with one end for the broker and one for the child. The child's is open both ways, so
 * that a broker that dies ends no reads and kills no writers: they go on with what they hold.
 */
static int nameless(struct jobserver_directory *directory, const char *kind, unsigned number, int *own, int *childs) {
    char *path = NULL;
    int result = make_fifo(directory, kind, number, &path, own);
    if (result == 0) {
        *childs = open_end(path, O_RDWR, true);
        result = *childs < 0 ? *childs : 0;
        unlink(path);
    }
    free(path);
    return result;
}

static int open_life_line(struct jobserver_lease_pipes *pipes) {
    int ends[2];
    int result = jobserver_private_pipe(ends);
    if (result == 0) {
        pipes->life_line = ends[0];
        pipes->for_child[2] = ends[1];
    }
    return result;
}

int jobserver_lease_pipes_open(struct jobserver_directory *directory, unsigned number, bool fifo, bool life_line,
                               int most, struct jobserver_lease_pipes *pipes) {
    (void)most;
    *pipes = (struct jobserver_lease_pipes){
        .offer = -1, .returned = -1, .life_line = -1, .for_child = {-1, -1, -1}, .path = NULL};
    int result;
    if (fifo) {
        result = make_fifo(directory, "lease", number, &pipes->path, &pipes->offer);
        pipes->named = result == 0;
    } else {
        result = nameless(directory, "take", number, &pipes->offer, &pipes->for_child[0]);
        if (result == 0) {
            result = nameless(directory, "give", number, &pipes->returned, &pipes->for_child[1]);
        }
    }
    if (result == 0 && life_line) {
        result = open_life_line(pipes);
    }
    if (result < 0) {
        jobserver_lease_pipes_close(pipes, true);
    }
    return result;
}

void jobserver_lease_pipes_close_child(struct jobserver_lease_pipes *pipes) {
    for (int end = 0; end < 3; end++) {
        close_and_forget(&pipes->for_child[end]);
    }
}

void jobserver_lease_pipes_close(struct jobserver_lease_pipes *pipes, bool remove) {
    jobserver_lease_pipes_close_child(pipes);
    close_and_forget(&pipes->offer);
    close_and_forget(&pipes->returned);
    close_and_forget(&pipes->life_line);
    if (pipes->named && remove) {
        unlink(pipes->path);
    }
    pipes->named = false;
    free(pipes->path);
    pipes->path = NULL;
}

bool jobserver_lease_pipes_all_gone(const struct jobserver_lease_pipes *pipes) {
    char nothing;
    return pipes->life_line < 0 || read(pipes->life_line, &nothing, 1) == 0;
}

int jobserver_lease_pipes_untaken(const struct jobserver_lease_pipes *pipes) {
    int count = 0;
    return ioctl(pipes->offer, FIONREAD, &count) < 0 ? 0 : count;
}

/* One byte a write, so that no page of the pipe is left with a gap that a later byte does not fit into. */
int jobserver_lease_pipes_offer(const struct jobserver_lease_pipes *pipes, int count) {
    const unsigned char token = JOBSERVER_TOKEN_BYTE;
    int offered = 0;
    while (offered < count && write(pipes->offer, &token, 1) == 1) {
        offered++;
    }
    return offered;
}

/* Reads up to `count` bytes. */
static int fetch(int descriptor, int count, int64_t *foreign) {
    unsigned char bytes[4096];
    int fetched = 0;
    while (fetched < count) {
        size_t wanted = (size_t)(count - fetched);
        ssize_t found = read(descriptor, bytes, wanted < sizeof bytes ? wanted : sizeof bytes);
        if (found <= 0) {
            break;
        }
        for (ssize_t at = 0; at < found; at++) {
            *foreign += bytes[at] != JOBSERVER_TOKEN_BYTE;
        }
        fetched += (int)found;
    }
    return fetched;
}

int jobserver_lease_pipes_withdraw(const struct jobserver_lease_pipes *pipes, int count, int64_t *foreign) {
    return fetch(pipes->offer, count, foreign);
}

int jobserver_lease_pipes_fetch(const struct jobserver_lease_pipes *pipes, int count, int64_t *foreign) {
    return pipes->returned < 0 ? 0 : fetch(pipes->returned, count, foreign);
}

int jobserver_bell_open(struct jobserver_bell *bell) {
    int result = jobserver_private_pipe(bell->ends);
    if (result < 0) {
        bell->ends[0] = bell->ends[1] = -1;
    }
    return result;
}

void jobserver_bell_close(struct jobserver_bell *bell) {
    close_and_forget(&bell->ends[0]);
    close_and_forget(&bell->ends[1]);
}

/* A full pipe is rung too. */
void jobserver_bell_ring(struct jobserver_bell *bell) {
    if (bell->ends[1] >= 0) {
        ssize_t written = write(bell->ends[1], "", 1);
        (void)written;
    }
}

int jobserver_bell_wait(struct jobserver_bell *bell, int64_t deadline) {
    struct jobserver_until until = {.deadline = deadline};
    int result = jobserver_poll(bell->ends[0], &until);
    char rung[64];
    while (read(bell->ends[0], rung, sizeof rung) > 0) {
    }
    return result;
}

#endif
