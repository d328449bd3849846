/*
 * What a platform must provide: a channel to one pool, a clock, and hooks for fork and exit.
 *
 * A channel is the system's side of a pool. Nothing here counts or owns tokens; that is client.c's and token.c's. The
 * results are those of jobserver.h. No function changes the status flags of a description that it did not open, and
 * none opens a descriptor below 3: whoever sets up a standard stream would close it.
 */
#ifndef JOBSERVER_PLATFORM_H
#define JOBSERVER_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct jobserver_channel jobserver_channel;

/*
 * The byte that GNU make puts into a pipe for each token. A token that was never read (a pool's first ones, the
 * implicit slot when it is lent) is written as this.
 */
#define JOBSERVER_TOKEN_BYTE '+'

/*
 * What ends a wait for a token before there is one: a deadline on jobserver_now's clock (negative for none, 0 for no
 * wait at all), or another thing: a descriptor that becomes readable, on Windows a handle that is signalled.
 */
struct jobserver_until {
    int64_t deadline;
    const intptr_t *others;
    int count;
};

/*
 * Each makes a channel that the caller owns; with a limit it makes the pool too, and puts that many tokens into it.
 * JOBSERVER_UNSUPPORTED for kinds of pools that the system does not have.
 */
int jobserver_channel_create_pipe(int limit, jobserver_channel **channel);
int jobserver_channel_create_fifo(const char *path, int limit, jobserver_channel **channel);
int jobserver_channel_create_private_fifo(const char *directory, int limit, jobserver_channel **channel);
int jobserver_channel_create_semaphore(int limit, jobserver_channel **channel);
int jobserver_channel_open_descriptors(int read_fd, int write_fd, jobserver_channel **channel);
int jobserver_channel_open_path(const char *path, jobserver_channel **channel);
int jobserver_channel_open_semaphore(const char *name, jobserver_channel **channel);

/* Closes what the channel opened and frees it; removes the fifo too if `remove` and the channel made one. */
void jobserver_channel_close(jobserver_channel *channel, bool remove);

/* Removes the fifo that the channel made, if it made one. For a process that exits. */
void jobserver_channel_remove(jobserver_channel *channel);

/* What tells one pool from another on this machine, while it exists. */
struct jobserver_pool {
    uint64_t device;
    uint64_t number;
};
struct jobserver_pool jobserver_channel_pool(const jobserver_channel *channel);

/*
 * Takes up to `size` tokens without waiting. Returns how many (at least 1), -EAGAIN, or JOBSERVER_UNSUPPORTED if the
 * system has no way to do that to this pool.
 */
int jobserver_channel_take(jobserver_channel *channel, unsigned char *bytes, size_t size);

/* For such a pool: sleeps until there is a token and takes it at once. Returns how many, -EAGAIN or -EINTR. */
int jobserver_channel_take_sleeping(jobserver_channel *channel, unsigned char *bytes, size_t size);

/*
 * Sleeps until there may be a token. Returns 0, or 1 if this waiter alone was woken and must see to it that the wake-up
 * is not lost; JOBSERVER_READY if another thing came first, -ETIMEDOUT, -EINTR, or why it cannot wait for the others.
 */
int jobserver_channel_wait(jobserver_channel *channel, const struct jobserver_until *until);

/*
 * Sees to it that no wait of this process is woken in the place of another process's: not those that sleep (they go
 * on sleeping) and none that begins later. For a process that exits; the caller holds the lock.
 */
void jobserver_channel_retire(jobserver_channel *channel);

/*
 * Gives tokens back without waiting. Returns how many went in (at least 1), -EAGAIN for a full pipe, or
 * JOBSERVER_TOO_MANY for a semaphore that has all its tokens.
 */
int jobserver_channel_give(jobserver_channel *channel, const unsigned char *bytes, size_t size);

/* Tokens that are free now, without taking one. */
int jobserver_channel_available(jobserver_channel *channel);

/* How many tokens the pool holds for sure, however they were taken and given back before. */
size_t jobserver_channel_capacity(const jobserver_channel *channel);

/*
 * Excludes all others who lock this pool, in any process. Opening takes nothing yet (the caller holds jobserver_lock);
 * JOBSERVER_UNSUPPORTED where the pool cannot be opened once more. Waiting returns 0 when it is locked, -EAGAIN,
 * -ETIMEDOUT, or -EINTR and JOBSERVER_READY, after which one may wait again. Closing unlocks. A forked child has no
 * locks: a copy would keep the pool locked when the parent dies.
 */
typedef struct jobserver_pool_lock jobserver_pool_lock;
int jobserver_pool_lock_open(jobserver_channel *channel, jobserver_pool_lock **lock);
int jobserver_pool_lock_wait(jobserver_pool_lock *lock, const struct jobserver_until *until);
void jobserver_pool_lock_close(jobserver_pool_lock *lock);

/* What children inherit: two descriptor numbers (-1 if it is none), and the path or name (null if it is descriptors). */
void jobserver_channel_descriptors(const jobserver_channel *channel, int descriptors[2]);
const char *jobserver_channel_path(const jobserver_channel *channel);

/* In a forked child: forgets what must not be shared with the parent. Async-signal-safe. */
void jobserver_channel_forked(jobserver_channel *channel);

/* Whether one descriptor can be an end of a pool. 0, -EBADF or an enum jobserver_error. */
int jobserver_channel_check(int descriptor, bool for_writing);

/* Nanoseconds on a clock that is never set back. */
int64_t jobserver_now(void);

/* One lock for the process, held by the caller of fork so that a child finds it free. */
void jobserver_lock(void);
void jobserver_unlock(void);

/*
 * Whether this copy of the core is the first one in the process that asks, and so the one that may own the process's
 * implicit slot. Where copies cannot know of each other (neither glibc nor Windows) each is told that it is.
 */
bool jobserver_claim_implicit(void);

/* Lets other threads run for a moment. */
void jobserver_pause(void);

/*
 * From now on the platform calls the first of these in every forked child, with the lock held, and the second from
 * exit(). Harmless when called again.
 */
void jobserver_platform_start(void);
void jobserver_process_forked(void);
void jobserver_process_exit(void);

#endif
