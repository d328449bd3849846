/* A fifo that this process made: where its user said, or in a private directory. */
#include "posix.h"

#if !defined(_WIN32)

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIFO_NAME "jobserver"

struct jobserver_fifo {
    char *path;
    struct jobserver_directory *directory; /* the private one, or null */
    dev_t device;                          /* what the path led to when it was made */
    ino_t number;
    atomic_bool removed;
};

/* Others may have put a fifo of their own into the place of one that they removed: that one stays. */
void jobserver_fifo_remove(struct jobserver_fifo *fifo) {
    struct stat status;
    if (atomic_exchange(&fifo->removed, true)) {
        return;
    }
    if (lstat(fifo->path, &status) == 0 && status.st_dev == fifo->device && status.st_ino == fifo->number) {
        unlink(fifo->path);
    }
    if (fifo->directory != NULL) {
        jobserver_directory_remove(fifo->directory);
    }
}

void jobserver_fifo_free(struct jobserver_fifo *fifo) {
    if (fifo == NULL) {
        return;
    }
    jobserver_directory_free(fifo->directory);
    free(fifo->path);
    free(fifo);
}

/* Makes the fifo at fifo->path, for this user only. */
static int make(struct jobserver_fifo *fifo) {
    struct stat status;
    if (fifo->path == NULL || mkfifo(fifo->path, 0600) < 0 || lstat(fifo->path, &status) < 0) {
        return -errno;
    }
    fifo->device = status.st_dev;
    fifo->number = status.st_ino;
    return 0;
}

/* Makes the fifo and hands it to the caller with a copy of its path, or takes away what there is of it. */
static int finish(struct jobserver_fifo *fifo, int result, struct jobserver_fifo **out, char **own_path) {
    if (result == 0) {
        result = make(fifo);
    }
    if (result == 0) {
        *own_path = strdup(fifo->path);
        if (*own_path != NULL) {
            *out = fifo;
            return 0;
        }
        unlink(fifo->path);
        result = -ENOMEM;
    }
    if (fifo->directory != NULL) {
        jobserver_directory_remove(fifo->directory);
    }
    jobserver_fifo_free(fifo);
    return result;
}

static struct jobserver_fifo *fifo_new(void) {
    return calloc(1, sizeof(struct jobserver_fifo));
}

int jobserver_fifo_create(const char *path, struct jobserver_fifo **out, char **own_path) {
    struct jobserver_fifo *fifo = fifo_new();
    if (fifo == NULL) {
        return -ENOMEM;
    }
    fifo->path = jobserver_absolute_path(path);
    return finish(fifo, 0, out, own_path);
}

int jobserver_fifo_create_private(const char *directory, struct jobserver_fifo **out, char **own_path) {
    struct jobserver_fifo *fifo = fifo_new();
    if (fifo == NULL) {
        return -ENOMEM;
    }
    int result = jobserver_directory_create(directory, &fifo->directory);
    if (result == 0) {
        fifo->path = jobserver_join_path(jobserver_directory_path(fifo->directory), FIFO_NAME);
    }
    return finish(fifo, result, out, own_path);
}

#endif
