/*
 * What the POSIX files share: the posix_ files have what all systems do alike, linux.c and portable.c what they do
 * apart. Included first, so that the systems' headers show what is not in plain C11.
 */
#ifndef JOBSERVER_POSIX_H
#define JOBSERVER_POSIX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef _DARWIN_C_SOURCE
#define _DARWIN_C_SOURCE
#endif

#include <stdatomic.h>

#include "jobserver.h"
#include "platform.h"

enum jobserver_channel_kind { JOBSERVER_PIPE, JOBSERVER_SOCKET, JOBSERVER_DEVICE };

/*
 * A channel's descriptors; negative where it has none, and two may be the same number. Those that are advertised share
 * their description with other processes; the private ones were opened here, so their status flags are ours.
 */
struct jobserver_channel {
    enum jobserver_channel_kind kind;      /* of the end that is read */
    enum jobserver_channel_kind give_kind; /* of the end that is written */
    int read_fd;                           /* advertised */
    int write_fd;
    bool owns_advertised;
    int take_fd;         /* private, reading does not block */
    int give_fd;         /* private, writing does not block */
    size_t most_at_once; /* tokens for one write */
    size_t capacity;     /* tokens that it holds for sure */
    struct jobserver_pool pool;
    struct jobserver_fifo *fifo; /* made by this channel, or null */
    char *path;                  /* of the fifo or device, or null */

    /* Under jobserver_lock; a forked child closes its copies of what is in here. */
    struct jobserver_sleeper *sleepers;
    int spare_epoll;
    atomic_bool lingers; /* the spare epoll still watches the pool */
    bool retired;
};

/* One thread that sleeps in an epoll of its own. It stands on that thread's stack. */
struct jobserver_sleeper {
    int epoll;
    struct jobserver_sleeper *next;
    struct jobserver_sleeper **link; /* what points to this one */
};

/* A descriptor that take functions may use: private if there is one. */
int jobserver_channel_take_descriptor(const jobserver_channel *channel);

#define JOBSERVER_NANOSECONDS 1000000000LL /* in a second */

/* The descriptor, or a copy of it above the standard streams; the original is closed then. Negative ones stay. */
int jobserver_above_standard(int descriptor);

/* Whether two descriptors lead to one and the same pipe or device. */
bool jobserver_same_file(int one, int other);

/* Opens an anonymous pipe, close-on-exec, as the advertised ends of a new channel. */
int jobserver_system_pipe(jobserver_channel *channel);

/* Opens what private descriptions the system allows of a channel that is advertised by descriptors. */
void jobserver_system_open_private(jobserver_channel *channel);

/* Opens the fifo or device at channel->path. */
int jobserver_system_open_path(jobserver_channel *channel);

/* Makes room for `limit` tokens. 0 or JOBSERVER_LIMIT. */
int jobserver_system_make_room(jobserver_channel *channel, int limit);

/* The most tokens that one write may hold, so that `limit` tokens fit however they were taken and given back. */
size_t jobserver_system_most_at_once(const jobserver_channel *channel, int limit);

/* How many tokens the pipe holds for sure, however they were taken and given back before. */
size_t jobserver_system_capacity(const jobserver_channel *channel);

/*
 * Ends what a wait put off to be quick: it was the last thing between a token and whoever waited for it. The caller may
 * hold the lock.
 */
void jobserver_system_linger_no_more(jobserver_channel *channel);

/* Takes jobserver_lock unless it is taken, by whomever. */
bool jobserver_try_lock(void);

/* Reads or writes a shared description without waiting, where the system can do that. */
int jobserver_system_read_shared(int descriptor, unsigned char *bytes, size_t size);
int jobserver_system_write_shared(int descriptor, const unsigned char *bytes, size_t size);

/* Sleeps in poll until the descriptor is readable. 0, JOBSERVER_READY if only others are, -ETIMEDOUT or -EINTR. */
int jobserver_poll(int descriptor, const struct jobserver_until *until);

/* What a wait that saw nothing returns: a system call sleeps for 24 days at most, which may be before the deadline. */
int jobserver_nothing_until(int64_t deadline);

/* Writes a shared description if poll says that it is ready: only who releases too much can fill it in between. */
int jobserver_write_if_ready(int descriptor, const unsigned char *bytes, size_t size);

/* What is left until the deadline in milliseconds, rounded up; -1 for none. */
int jobserver_milliseconds_left(int64_t deadline);

/*
 * directory.c: a private directory for fifos, below another one. It is this process's as long as the structure lives;
 * removing needs it to be empty. Others that are found beside it and whose owners died are removed, with their fifos.
 */
struct jobserver_directory;
int jobserver_directory_create(const char *parent, struct jobserver_directory **directory);
const char *jobserver_directory_path(const struct jobserver_directory *directory);
int jobserver_directory_lock(const struct jobserver_directory *directory); /* the descriptor that locks it */
void jobserver_directory_remove(const struct jobserver_directory *directory);
void jobserver_directory_free(struct jobserver_directory *directory);

/* Paths in memory that the caller frees, or null: "directory/name"; and the path from the root on. */
char *jobserver_join_path(const char *directory, const char *name);
char *jobserver_absolute_path(const char *path);

/* A pipe that this process alone has: close-on-exec, not blocking, above the standard streams. 0 or a negated errno. */
int jobserver_private_pipe(int ends[2]);

/* posix_lease.c: whether a child has ended or has been waited for, without waiting for it. */
bool jobserver_has_exited(int process);

/* A description of the pool of its own, for flock, or JOBSERVER_UNSUPPORTED. */
int jobserver_system_open_lock(jobserver_channel *channel);

/* posix_lock.c: closes in a forked child what locks the parent's pools. The caller holds the lock. */
void jobserver_pool_locks_forked(void);

/* posix_event.c: closes the descriptors alone. */
void jobserver_event_close(jobserver_event *event);

/* fifo.c: a fifo that this process made. Both give the path to *path as a string that the caller frees. */
int jobserver_fifo_create(const char *path, struct jobserver_fifo **fifo, char **own_path);
int jobserver_fifo_create_private(const char *directory, struct jobserver_fifo **fifo, char **own_path);
void jobserver_fifo_remove(struct jobserver_fifo *fifo);
void jobserver_fifo_free(struct jobserver_fifo *fifo);

#endif
