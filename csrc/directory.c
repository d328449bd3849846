/* A private directory for fifos of this process's making, and what became of those of processes that died. */
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

/* How often a new directory may be swept away by another process before its owner has locked it. */
#define MOST_TRIES 100

/*
 * The owner holds a lock on the directory as long as it lives, so that others can tell a directory that is in use from
 * one that was left behind, across process number spaces and whatever the reuse of process numbers.
 */
struct jobserver_directory {
    char *path;
    int lock; /* on it, or -1 */
};

char *jobserver_join_path(const char *directory, const char *name) {
    size_t size = strlen(directory) + strlen(name) + 2;
    char *path = malloc(size);
    if (path != NULL) {
        snprintf(path, size, "%s/%s", directory, name);
    }
    return path;
}

char *jobserver_absolute_path(const char *path) {
    if (path[0] == '/') {
        return strdup(path);
    }
    char *here = getcwd(NULL, 0);
    char *whole = here == NULL ? NULL : jobserver_join_path(here, path);
    free(here);
    return whole;
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

/* Removes the fifos in a directory that is open, and nothing else. */
static void remove_fifos(int directory) {
    int copy = fcntl(directory, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    if (entries == NULL) {
        if (copy >= 0) {
            close(copy);
        }
        return;
    }
    struct dirent *entry;
    struct stat status;
    while ((entry = readdir(entries)) != NULL) {
        if (fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISFIFO(status.st_mode)) {
            unlinkat(directory, entry->d_name, 0);
        }
    }
    closedir(entries);
}

/* Removes the directory if its owner is gone, which is so when nobody holds the lock. */
static void remove_if_abandoned(int parent, const char *name) {
    int directory = open_directory(parent, name);
    if (directory < 0) {
        return;
    }
    if (flock(directory, LOCK_EX | LOCK_NB) == 0) {
        remove_fifos(directory);
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
 * Makes the directory from the template that is its path, and locks it. 0, -EAGAIN if it was swept away before it was locked, or another
 * negated errno.
 */
static int make(struct jobserver_directory *own) {
    if (mkdtemp(own->path) == NULL) {
        return -errno;
    }
    int lock = open_directory(AT_FDCWD, own->path);
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
    if (!still_there(own->path, lock)) {
        close(lock);
        return -EAGAIN;
    }
    own->lock = lock;
    return 0;
}

/* Makes the directory below another one, in as many tries as it takes. */
static int make_below(struct jobserver_directory *own, const char *parent) {
    char *template = jobserver_join_path(parent, DIRECTORY_PREFIX "XXXXXX");
    int result = template == NULL ? -ENOMEM : -EAGAIN;
    for (int tries = 0; result == -EAGAIN && tries < MOST_TRIES; tries++) {
        free(own->path);
        own->path = jobserver_absolute_path(template);
        result = own->path == NULL ? -errno : make(own);
    }
    free(template);
    return result;
}

int jobserver_directory_create(const char *parent, struct jobserver_directory **out) {
    struct jobserver_directory *own = calloc(1, sizeof *own);
    if (own == NULL) {
        return -ENOMEM;
    }
    own->lock = -1;
    sweep(parent);
    int result = make_below(own, parent);
    if (result < 0) {
        jobserver_directory_free(own);
        return result;
    }
    *out = own;
    return 0;
}

const char *jobserver_directory_path(const struct jobserver_directory *own) {
    return own->path;
}

int jobserver_directory_lock(const struct jobserver_directory *own) {
    return own->lock;
}

void jobserver_directory_remove(const struct jobserver_directory *own) {
    rmdir(own->path);
}

void jobserver_directory_free(struct jobserver_directory *own) {
    if (own == NULL) {
        return;
    }
    if (own->lock >= 0) {
        close(own->lock);
    }
    free(own->path);
    free(own);
}

#endif
