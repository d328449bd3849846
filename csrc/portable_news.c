/*
 * POSIX systems without inotify: all leases are looked at in ticks, from one a millisecond while tokens move to twenty a
 * second while none does. A process must be a child of this one. Compiled on Linux too with JOBSERVER_PORTABLE.
 */
#include "posix.h"

#if !defined(_WIN32) && (!defined(__linux__) || defined(JOBSERVER_PORTABLE))

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker_platform.h"
#include "jobserver.h"

struct jobserver_watch {
    void *owner;
    int life_line;
    int process;
    struct jobserver_watch *next;
};

struct jobserver_news {
    struct jobserver_bell bell;
    struct jobserver_watch *watches;
    int64_t tick;
    bool look; /* at all watches, from the start of the list */
    struct jobserver_watch *looked_at;
};

int jobserver_private_pipe(int ends[2]) {
    if (pipe(ends) < 0) {
        return -errno;
    }
    for (int end = 0; end < 2; end++) {
        ends[end] = jobserver_above_standard(ends[end]);
        if (ends[end] < 0 || fcntl(ends[end], F_SETFD, FD_CLOEXEC) < 0 || fcntl(ends[end], F_SETFL, O_NONBLOCK) < 0) {
            return -errno;
        }
    }
    return 0;
}

int jobserver_adopt_orphans(void) {
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_news_open(struct jobserver_news **out) {
    struct jobserver_news *news = calloc(1, sizeof *news);
    if (news == NULL) {
        return -ENOMEM;
    }
    int result = jobserver_bell_open(&news->bell);
    if (result < 0) {
        free(news);
        return result;
    }
    *out = news;
    return 0;
}

void jobserver_news_close(struct jobserver_news *news) {
    jobserver_bell_close(&news->bell);
    free(news);
}

int jobserver_watch_add(struct jobserver_news *news, const struct jobserver_lease_pipes *pipes, void *owner,
                        struct jobserver_watch **out) {
    struct jobserver_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) {
        return -ENOMEM;
    }
    *watch = (struct jobserver_watch){.owner = owner, .life_line = pipes->life_line, .next = news->watches};
    news->watches = watch;
    *out = watch;
    return 0;
}

int jobserver_watch_process(struct jobserver_news *news, struct jobserver_watch *watch, int process) {
    (void)news;
    watch->process = process;
    return 0;
}

void jobserver_watch_remove(struct jobserver_news *news, struct jobserver_watch *watch) {
    struct jobserver_watch **link = &news->watches;
    while (*link != watch) {
        link = &(*link)->next;
    }
    *link = watch->next;
    if (news->looked_at == watch) {
        news->looked_at = watch->next;
    }
    free(watch);
}

void jobserver_news_wait(struct jobserver_news *news, int64_t deadline, bool busy) {
    news->tick = jobserver_tick(news->tick, busy);
    int64_t next = jobserver_now() + news->tick;
    jobserver_bell_wait(&news->bell, deadline < 0 || next < deadline ? next : deadline);
    news->look = true;
}

void jobserver_news_wake(struct jobserver_news *news) {
    jobserver_bell_ring(&news->bell);
}

unsigned jobserver_news_take_next(struct jobserver_news *news, void **owner) {
    if (news->look) {
        news->look = false;
        news->looked_at = news->watches;
    }
    struct jobserver_watch *watch = news->looked_at;
    if (watch == NULL) {
        return 0;
    }
    news->looked_at = watch->next;
    *owner = watch->owner;
    unsigned kind = JOBSERVER_NEWS_MOVED;
    char nothing;
    if (watch->process > 0 && jobserver_has_exited(watch->process)) {
        watch->process = 0;
        kind |= JOBSERVER_NEWS_EXITED;
    }
    if (watch->life_line >= 0 && read(watch->life_line, &nothing, 1) == 0) {
        watch->life_line = -1;
        kind |= JOBSERVER_NEWS_ALL_GONE;
    }
    return kind;
}

#endif
