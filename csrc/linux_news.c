/*
 * Linux: news of leases without polling. inotify tells of every read and write of a fifo, epoll of what is given back
 * in a pipe of its own, a pidfd of the end of a process. What the system refuses (an instance of inotify too many, no
 * pidfds) is looked at in ticks.
 */
#include "posix.h"

#if defined(__linux__) && !defined(JOBSERVER_PORTABLE)

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broker_platform.h"
#include "jobserver.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#define MOST_EVENTS 64
#define BUCKETS 256

struct jobserver_watch {
    void *owner;  /* null once it was removed */
    int offer;    /* number in inotify, or -1: looked at in ticks */
    int returned; /* descriptors in the epoll, or -1 */
    int life_line;
    int pidfd;   /* ours */
    int process; /* looked at in ticks, or 0 */
    struct jobserver_watch *next_in_bucket;
    struct jobserver_watch *next; /* of those that are looked at in ticks, or that were removed */
};

struct jobserver_news {
    int epoll;
    int inotify; /* or -1 */
    int wake;
    struct jobserver_watch *buckets[BUCKETS]; /* by their number in inotify */
    struct jobserver_watch *ticking;
    struct jobserver_watch *removed; /* kept until no news can name them */

    /* The thread that waits has these for itself. */
    bool ticks; /* whether anything is looked at in ticks */
    int64_t tick;
    struct epoll_event events[MOST_EVENTS];
    int count;
    int at;
    bool look;                         /* at what is looked at in ticks, from the start of the list */
    struct jobserver_watch *looked_at; /* the next one of them */
    _Alignas(struct inotify_event) char moves[4096];
    ssize_t moves_size;
    ssize_t moves_at;
};

int jobserver_private_pipe(int ends[2]) {
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        return -errno;
    }
    ends[0] = jobserver_above_standard(ends[0]);
    ends[1] = jobserver_above_standard(ends[1]);
    return ends[0] < 0 || ends[1] < 0 ? -errno : 0;
}

int jobserver_adopt_orphans(void) {
    return prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L) < 0 ? -errno : 0;
}

/* What an event in the epoll is about stands in the lowest bits of the watch's address. */
static int poll_for(struct jobserver_news *news, int descriptor, struct jobserver_watch *watch, unsigned kind) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)(uintptr_t)watch | kind};
    return epoll_ctl(news->epoll, EPOLL_CTL_ADD, descriptor, &event) < 0 ? -errno : 0;
}

static void poll_no_more(struct jobserver_news *news, int *descriptor) {
    if (*descriptor >= 0) {
        epoll_ctl(news->epoll, EPOLL_CTL_DEL, *descriptor, NULL);
    }
    *descriptor = -1;
}

int jobserver_news_open(struct jobserver_news **out) {
    struct jobserver_news *news = calloc(1, sizeof *news);
    if (news == NULL) {
        return -ENOMEM;
    }
    news->epoll = jobserver_above_standard(epoll_create1(EPOLL_CLOEXEC));
    news->wake = jobserver_above_standard(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    news->inotify = jobserver_above_standard(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    int result = news->epoll < 0 || news->wake < 0 ? -errno : poll_for(news, news->wake, NULL, 0);
    if (result == 0 && news->inotify >= 0) {
        result = poll_for(news, news->inotify, NULL, JOBSERVER_NEWS_MOVED);
    }
    if (result < 0) {
        jobserver_news_close(news);
        return result;
    }
    *out = news;
    return 0;
}

static void bury(struct jobserver_news *news) {
    while (news->removed != NULL) {
        struct jobserver_watch *watch = news->removed;
        news->removed = watch->next;
        free(watch);
    }
}

void jobserver_news_close(struct jobserver_news *news) {
    bury(news);
    int descriptors[] = {news->epoll, news->wake, news->inotify};
    for (int at = 0; at < 3; at++) {
        if (descriptors[at] >= 0) {
            close(descriptors[at]);
        }
    }
    free(news);
}

/* Lets inotify tell of a fifo. A descriptor's own name stands for the fifo even if that has lost its name. */
static void notify(struct jobserver_news *news, struct jobserver_watch *watch, int descriptor, uint32_t mask) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    watch->offer = news->inotify < 0 ? -1 : inotify_add_watch(news->inotify, path, mask);
    if (watch->offer < 0) {
        watch->next = news->ticking;
        news->ticking = watch;
    } else {
        struct jobserver_watch **bucket = &news->buckets[watch->offer % BUCKETS];
        watch->next_in_bucket = *bucket;
        *bucket = watch;
    }
}

int jobserver_watch_add(struct jobserver_news *news, const struct jobserver_lease_pipes *pipes, void *owner,
                        struct jobserver_watch **out) {
    struct jobserver_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) {
        return -ENOMEM;
    }
    *watch = (struct jobserver_watch){.owner = owner, .offer = -1, .returned = -1, .life_line = -1, .pidfd = -1};
    int result = 0;
    if (pipes->returned >= 0) {
        watch->returned = pipes->returned;
        result = poll_for(news, pipes->returned, watch, JOBSERVER_NEWS_MOVED);
    }
    if (result == 0 && pipes->life_line >= 0) {
        watch->life_line = pipes->life_line;
        result = poll_for(news, pipes->life_line, watch, JOBSERVER_NEWS_ALL_GONE);
    }
    if (result < 0) {
        poll_no_more(news, &watch->returned);
        free(watch);
        return result;
    }
    notify(news, watch, pipes->offer, pipes->returned >= 0 ? IN_ACCESS : IN_ACCESS | IN_MODIFY);
    *out = watch;
    return 0;
}

static void tick_for(struct jobserver_news *news, struct jobserver_watch *watch) {
    if (watch->offer >= 0 && watch->process == 0) {
        watch->next = news->ticking;
        news->ticking = watch;
    }
}

int jobserver_watch_process(struct jobserver_news *news, struct jobserver_watch *watch, int process) {
    watch->pidfd = jobserver_above_standard((int)syscall(SYS_pidfd_open, process, 0));
    if (watch->pidfd >= 0) {
        return poll_for(news, watch->pidfd, watch, JOBSERVER_NEWS_EXITED);
    }
    tick_for(news, watch);
    watch->process = process;
    return 0;
}

static void unlink_from(struct jobserver_watch **list, struct jobserver_watch *watch, bool bucket) {
    while (*list != NULL) {
        struct jobserver_watch **next = bucket ? &(*list)->next_in_bucket : &(*list)->next;
        if (*list == watch) {
            *list = *next;
            return;
        }
        list = next;
    }
}

static void end_process(struct jobserver_news *news, struct jobserver_watch *watch) {
    int pidfd = watch->pidfd;
    poll_no_more(news, &watch->pidfd);
    if (pidfd >= 0) {
        close(pidfd);
    }
}

void jobserver_watch_remove(struct jobserver_news *news, struct jobserver_watch *watch) {
    if (news->looked_at == watch) {
        news->looked_at = watch->next;
    }
    unlink_from(&news->ticking, watch, false);
    if (watch->offer >= 0) {
        inotify_rm_watch(news->inotify, watch->offer);
        unlink_from(&news->buckets[watch->offer % BUCKETS], watch, true);
    }
    poll_no_more(news, &watch->returned);
    poll_no_more(news, &watch->life_line);
    end_process(news, watch);
    watch->owner = NULL;
    watch->next = news->removed;
    news->removed = watch;
}

/* Sleeps until the deadline, or for a tick if that is sooner. */
static int64_t until(struct jobserver_news *news, int64_t deadline, bool busy) {
    if (!news->ticks) {
        return deadline;
    }
    news->tick = jobserver_tick(news->tick, busy);
    int64_t next = jobserver_now() + news->tick;
    return deadline < 0 || next < deadline ? next : deadline;
}

void jobserver_news_wait(struct jobserver_news *news, int64_t deadline, bool busy) {
    int timeout = jobserver_milliseconds_left(until(news, deadline, busy));
    news->count = epoll_wait(news->epoll, news->events, MOST_EVENTS, timeout);
    news->at = 0;
    news->look = true;
    news->moves_size = news->moves_at = 0;
    for (int at = 0; at < news->count; at++) {
        uint64_t about = news->events[at].data.u64;
        uint64_t wakes;
        if (about == JOBSERVER_NEWS_MOVED) {
            news->moves_size = read(news->inotify, news->moves, sizeof news->moves);
        } else if (about == 0 && read(news->wake, &wakes, sizeof wakes) < 0) {
            continue;
        }
    }
}

void jobserver_news_wake(struct jobserver_news *news) {
    uint64_t one = 1;
    ssize_t written = write(news->wake, &one, sizeof one);
    (void)written;
}

/* The next event of inotify: its kind and the owner, who is null after an overflow; or 0 for a watch that was removed. */
static unsigned moved(struct jobserver_news *news, void **owner) {
    const struct inotify_event *event = (const struct inotify_event *)(const void *)(news->moves + news->moves_at);
    news->moves_at += (ssize_t)sizeof *event + event->len;
    if (event->wd < 0) {
        *owner = NULL;
        return JOBSERVER_NEWS_MOVED;
    }
    struct jobserver_watch *watch = news->buckets[event->wd % BUCKETS];
    while (watch != NULL && watch->offer != event->wd) {
        watch = watch->next_in_bucket;
    }
    *owner = watch == NULL ? NULL : watch->owner;
    return watch == NULL ? 0 : JOBSERVER_NEWS_MOVED;
}

/* The next event of the epoll: its kind, with the watch's owner, or 0 if it tells nothing. */
static unsigned polled(struct jobserver_news *news, void **owner) {
    uint64_t about = news->events[news->at++].data.u64;
    struct jobserver_watch *watch = (struct jobserver_watch *)(uintptr_t)(about & ~(uint64_t)7);
    unsigned kind = about & 7;
    if (watch == NULL || watch->owner == NULL) {
        return 0;
    }
    if (kind == JOBSERVER_NEWS_EXITED) {
        end_process(news, watch);
    } else if (kind == JOBSERVER_NEWS_ALL_GONE) {
        poll_no_more(news, &watch->life_line);
    }
    *owner = watch->owner;
    return kind;
}

/* What a look at the next watch of this tick shows, with its owner; or 0. */
static unsigned look(struct jobserver_news *news, void **owner) {
    struct jobserver_watch *watch = news->looked_at;
    news->looked_at = watch->next;
    *owner = watch->owner;
    unsigned kind = watch->offer < 0 ? (unsigned)JOBSERVER_NEWS_MOVED : 0;
    if (watch->process > 0 && jobserver_has_exited(watch->process)) {
        watch->process = 0;
        kind |= JOBSERVER_NEWS_EXITED;
    }
    return kind;
}

unsigned jobserver_news_take_next(struct jobserver_news *news, void **owner) {
    unsigned kind = 0;
    if (news->look) {
        news->look = false;
        news->looked_at = news->ticking;
    }
    while (kind == 0 && news->moves_at < news->moves_size) {
        kind = moved(news, owner);
    }
    while (kind == 0 && news->at < news->count) {
        kind = polled(news, owner);
    }
    while (kind == 0 && news->looked_at != NULL) {
        kind = look(news, owner);
    }
    if (kind == 0) {
        bury(news);
        news->ticks = news->ticking != NULL;
    }
    return kind;
}

#endif
