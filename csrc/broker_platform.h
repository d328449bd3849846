/*
 * What a platform must provide for leases: pipes between a broker and one process, and news of them.
 *
 * All functions but jobserver_news_wait and jobserver_news_wake are called with the broker's lock held.
 */
#ifndef JOBSERVER_BROKER_PLATFORM_H
#define JOBSERVER_BROKER_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The pipes of one lease. What is offered lies in `offer`; what is given back comes out of `returned`, or lies in
 * `offer` too where there is one fifo for both (-1). On Windows `offer` is a semaphore for both, whose count is the
 * tokens that lie in it, and the life line a job object around the processes: the numbers are handles there, of which
 * Windows uses 32 bits.
 */
struct jobserver_lease_pipes {
    int offer;
    int returned;
    int life_line;    /* at its end of file no process that inherited the other end is left; or -1 */
    int for_child[3]; /* read end, write end, other end of the life line; or -1 */
    char *path;       /* of the fifo, or the name of the semaphore, or null */
    bool named;       /* the fifo is there to be removed */
};

struct jobserver_directory;

/*
 * Makes the pipes; `number` tells them from others in the directory. A semaphore, which is neither a fifo nor pipes, has
 * room for `most` tokens. 0 or a negated errno.
 */
int jobserver_lease_pipes_open(struct jobserver_directory *directory, unsigned number, bool fifo, bool life_line,
                               int most, struct jobserver_lease_pipes *pipes);

/* Closes what only the child needs; and the rest. Both may be called again. */
void jobserver_lease_pipes_close_child(struct jobserver_lease_pipes *pipes);
void jobserver_lease_pipes_close(struct jobserver_lease_pipes *pipes, bool remove);

/* Whether nobody is left who inherited the life line; also where there is none. */
bool jobserver_lease_pipes_all_gone(const struct jobserver_lease_pipes *pipes);

/* How many bytes lie in `offer`. */
int jobserver_lease_pipes_untaken(const struct jobserver_lease_pipes *pipes);

/*
 * Each moves up to `count` bytes without waiting and returns how many: offers them; takes offers back; fetches what
 * was given back. *foreign grows by the bytes that are no token.
 */
int jobserver_lease_pipes_offer(const struct jobserver_lease_pipes *pipes, int count);
int jobserver_lease_pipes_withdraw(const struct jobserver_lease_pipes *pipes, int count, int64_t *foreign);
int jobserver_lease_pipes_fetch(const struct jobserver_lease_pipes *pipes, int count, int64_t *foreign);

/* Fifos go into a private directory below `parent`. */
int jobserver_lease_directory_open(const char *parent, struct jobserver_directory **directory);
void jobserver_lease_directory_close(struct jobserver_directory *directory, bool remove);

/* The descriptor that keeps the directory from being swept away, or a negated errno. */
int jobserver_lease_directory_lock(const struct jobserver_directory *directory);

/* One thread sleeps for news of many watches. */
struct jobserver_news;
struct jobserver_watch;

enum jobserver_news_kind {
    JOBSERVER_NEWS_MOVED = 1,   /* bytes went in or out; or a guess that they did */
    JOBSERVER_NEWS_EXITED = 2,  /* the process is gone */
    JOBSERVER_NEWS_ALL_GONE = 4 /* so is everybody who inherited the life line */
};

int jobserver_news_open(struct jobserver_news **news);
void jobserver_news_close(struct jobserver_news *news);

/* Watches pipes; `owner` is told with the news of them. And the process, which may be gone already. */
int jobserver_watch_add(struct jobserver_news *news, const struct jobserver_lease_pipes *pipes, void *owner,
                        struct jobserver_watch **watch);
int jobserver_watch_process(struct jobserver_news *news, struct jobserver_watch *watch, int process);

/* Ends a watch: its owner is told nothing more. The pipes are still open. */
void jobserver_watch_remove(struct jobserver_news *news, struct jobserver_watch *watch);

/*
 * Sleeps until there may be news, or somebody wakes it, or the deadline; `busy` says whether bytes moved lately. Any
 * thread may wake it, and it stays woken until it has returned once. After it returned, take_next hands out the news
 * one by one (0 when there are no more), with the lock held; a null owner stands for all of them.
 */
void jobserver_news_wait(struct jobserver_news *news, int64_t deadline, bool busy);
void jobserver_news_wake(struct jobserver_news *news);
unsigned jobserver_news_take_next(struct jobserver_news *news, void **owner);

/* broker.c: how long to sleep between two looks at what tells nothing, after `last` (0: the first). In nanoseconds. */
int64_t jobserver_tick(int64_t last, bool busy);

/*
 * A bell: a waiter sleeps on it, others ring it, which is harmless if it is not open. Rung once it stays rung. -EINTR, -ETIMEDOUT or 0; opening can fail.
 */
struct jobserver_bell {
    int ends[2];
};
int jobserver_bell_open(struct jobserver_bell *bell);
void jobserver_bell_close(struct jobserver_bell *bell);
void jobserver_bell_ring(struct jobserver_bell *bell);
int jobserver_bell_wait(struct jobserver_bell *bell, int64_t deadline);

#endif
