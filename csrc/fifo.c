/* A fifo that this process made: in a private directory, and without leftovers of processes that died. */
#include "posix.h"

#if !defined(_WIN32)

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIRECTORY_PREFIX "jobserver-ffi-"
#define FIFO_NAME "jobserver"

/* How often a new directory may be swept away by another process before its owner has locked it. */
#define MOST_TRIES 100

/*
 * The owner holds a lock on the private directory as long as it lives, so that others can tell a directory that is in
 * use from one that was left behind, across process number spaces and whatever the reuse of process numbers.
 */
struct jobserver_fifo {
    char *path;
    char *directory; /* the private one, or null */
    int lock;        /* on it, or -1 */
    dev_t device;    /* what the path led to when it was made */
    ino_t number;
    atomic_bool removed;
};

/* "directory/name" in memory that the caller frees, or null. */
static char *join(const char *directory, const char *name) {
    size_t size = strlen(directory) + strlen(name) + 2;
    char *path = malloc(size);
    if (path != NULL) {
        snprintf(path, size, "%s/%s", directory, name);
    }
    return path;
}

/* The path from the root on, in memory that the caller frees, or null: a process may change its directory. */
static char *absolute(const char *path) {
    if (path[0] == '/') {
        return strdup(path);
    }
    char *here = getcwd(NULL, 0);
    char *whole = here == NULL ? NULL : join(here, path);
    free(here);
    return whole;
}

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
        rmdir(fifo->directory);
    }
}

void jobserver_fifo_free(struct jobserver_fifo *fifo) {
    if (fifo == NULL) {
        return;
    }
    if (fifo->lock >= 0) {
        close(fifo->lock);
    }
    free(fifo->path);
    free(fifo->directory);
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
        rmdir(fifo->directory);
    }
    jobserver_fifo_free(fifo);
    return result;
}

static struct jobserver_fifo *fifo_new(void) {
    struct jobserver_fifo *fifo = calloc(1, sizeof *fifo);
    if (fifo != NULL) {
        fifo->lock = -1;
    }
    return fifo;
}

int jobserver_fifo_create(const char *path, struct jobserver_fifo **out, char **own_path) {
    struct jobserver_fifo *fifo = fifo_new();
    if (fifo == NULL) {
        return -ENOMEM;
    }
    fifo->path = absolute(path);
    return finish(fifo, 0, out, own_path);
}

/* Whether the name still leads to the directory that is open. */
static bool still_there(const char *path, int open_directory) {
    struct stat named, opened;
    return stat(path, &named) == 0 && fstat(open_directory, &opened) == 0 && named.st_dev == opened.st_dev &&
           named.st_ino == opened.st_ino;
}

/* Opens a directory of this user without following a link. A descriptor, or a negated errno. */
static int open_directory(int parent, const char *name) {
    int descriptor = jobserver_above_standard(openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat status;
    if (descriptor < 0) {
        return -errno;
    }
    if (fstat(descriptor, &status) < 0 || status.st_uid != geteuid()) {
        close(descriptor);
        return -EPERM;
    }
    return descriptor;
}

/* Removes the directory if its owner is gone, which is so when nobody holds the lock. */
static void remove_if_abandoned(int parent, const char *name) {
    int directory = open_directory(parent, name);
    if (directory < 0) {
        return;
    }
    if (flock(directory, LOCK_EX | LOCK_NB) == 0) {
        unlinkat(directory, FIFO_NAME, 0);
        unlinkat(parent, name, AT_REMOVEDIR);
    }
    close(directory);
}

/* Removes what owners that died left in the directory. */
static void sweep(const char *directory) {
    DIR *entries = opendir(directory);
    if (entries == NULL) {
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(entries)) != NULL) {
        if (strncmp(entry->d_name, DIRECTORY_PREFIX, strlen(DIRECTORY_PREFIX)) == 0) {
            remove_if_abandoned(dirfd(entries), entry->d_name);
        }
    }
    closedir(entries);
}

/*
 * Makes fifo->directory from a template and locks it. 0, -EAGAIN if it was swept away before it was locked, or another
 * negated errno.
 */
static int make_directory(struct jobserver_fifo *fifo) {
    if (mkdtemp(fifo->directory) == NULL) {
        return -errno;
    }
    int lock = open_directory(AT_FDCWD, fifo->directory);
    if (lock < 0) {
        return lock == -ENOENT ? -EAGAIN : lock;
    }
    while (flock(lock, LOCK_EX) < 0) {
        if (errno != EINTR) {
            int error = -errno;
            close(lock);
            return error;
        }
    }
    if (!still_there(fifo->directory, lock)) {
        close(lock);
        return -EAGAIN;
    }
    fifo->lock = lock;
    return 0;
}

/* Makes fifo->directory below another one, in as many tries as it takes. */
static int make_directory_below(struct jobserver_fifo *fifo, const char *directory) {
    char *template = join(directory, DIRECTORY_PREFIX "XXXXXX");
    int result = template == NULL ? -ENOMEM : -EAGAIN;
    for (int tries = 0; result == -EAGAIN && tries < MOST_TRIES; tries++) {
        free(fifo->directory);
        fifo->directory = absolute(template);
        result = fifo->directory == NULL ? -errno : make_directory(fifo);
    }
    free(template);
    return result;
}

int jobserver_fifo_create_private(const char *directory, struct jobserver_fifo **out, char **own_path) {
    struct jobserver_fifo *fifo = fifo_new();
    if (fifo == NULL) {
        return -ENOMEM;
    }
    sweep(directory);
    int result = make_directory_below(fifo, directory);
    if (result == 0) {
        fifo->path = join(fifo->directory, FIFO_NAME);
    }
    return finish(fifo, result, out, own_path);
}

#endif
