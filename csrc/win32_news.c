/*
 * Windows: news of leases. Nobody is told that a semaphore was counted down, so all leases are looked at in ticks, from
 * one a millisecond while tokens move to twenty a second while none does. The end of a process wakes at once.
 */
#include "win32.h"

#if defined(_WIN32)

#include <errno.h>
#include <stdlib.h>

#include "broker_platform.h"

/* Windows 10 has timers that are more exact than its clock of 64 ticks a second; older headers do not name them. */
#ifndef CREATE_WAITABLE_TIMER_HIGH_RESOLUTION
#define CREATE_WAITABLE_TIMER_HIGH_RESOLUTION 2
#endif

struct jobserver_watch {
    void *owner;
    int life_line; /* the job, which is the lease's, or -1 */
    HANDLE process;
    HANDLE wait; /* what wakes at the end of the process, or null */
    bool exited;
    struct jobserver_watch *next;
};

struct jobserver_news {
    HANDLE wake;
    HANDLE timer;
    struct jobserver_watch *watches;
    struct jobserver_watch *looked_at;

    /* The thread that waits has these for itself. */
    int64_t tick;
    bool ticks; /* whether there is anything to look at */
    bool look;  /* at all watches, from the start of the list */
};

static HANDLE open_timer(void) {
    HANDLE exact = CreateWaitableTimerExW(NULL, NULL, CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, TIMER_ALL_ACCESS);
    return exact != NULL ? exact : CreateWaitableTimerW(NULL, FALSE, NULL);
}

int jobserver_news_open(struct jobserver_news **out) {
    struct jobserver_news *news = calloc(1, sizeof *news);
    if (news == NULL) {
        return -ENOMEM;
    }
    news->wake = CreateEventW(NULL, FALSE, FALSE, NULL);
    news->timer = open_timer();
    if (news->wake == NULL || news->timer == NULL) {
        int result = jobserver_last_error();
        jobserver_news_close(news);
        return result;
    }
    *out = news;
    return 0;
}

void jobserver_news_close(struct jobserver_news *news) {
    if (news->wake != NULL) {
        CloseHandle(news->wake);
    }
    if (news->timer != NULL) {
        CloseHandle(news->timer);
    }
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

static void CALLBACK wake(void *event, BOOLEAN timed_out) {
    (void)timed_out;
    SetEvent(event);
}

/*
 * A process that cannot be put into the job (it has ended, or this Windows is older than 8 and it is in another one) is
 * watched without what it starts. If the system refuses to wake at its end, the ticks find out.
 */
int jobserver_watch_process(struct jobserver_news *news, struct jobserver_watch *watch, int process) {
    DWORD rights = SYNCHRONIZE | PROCESS_SET_QUOTA | PROCESS_TERMINATE;
    watch->process = OpenProcess(rights, FALSE, (DWORD)process);
    if (watch->process == NULL) {
        return jobserver_last_error();
    }
    if (watch->life_line != -1) {
        AssignProcessToJobObject(jobserver_handle(watch->life_line), watch->process);
    }
    if (!RegisterWaitForSingleObject(&watch->wait, watch->process, wake, news->wake, INFINITE, WT_EXECUTEONLYONCE)) {
        watch->wait = NULL;
    }
    return 0;
}

/* Waits for what is just waking: its event must not be closed under it. */
static void forget_process(struct jobserver_watch *watch) {
    if (watch->wait != NULL) {
        UnregisterWaitEx(watch->wait, INVALID_HANDLE_VALUE);
        watch->wait = NULL;
    }
    if (watch->process != NULL) {
        CloseHandle(watch->process);
        watch->process = NULL;
    }
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
    forget_process(watch);
    free(watch);
}

/* Sleeps for so many nanoseconds at most. */
static void sleep_for(struct jobserver_news *news, int64_t time) {
    HANDLE either[] = {news->wake, news->timer};
    LARGE_INTEGER due = {.QuadPart = time > 0 ? -((time + 99) / 100) : 0};
    if (SetWaitableTimer(news->timer, &due, 0, NULL, NULL, FALSE)) {
        WaitForMultipleObjects(2, either, FALSE, INFINITE);
    } else {
        WaitForSingleObject(news->wake, 1);
    }
}

void jobserver_news_wait(struct jobserver_news *news, int64_t deadline, bool busy) {
    int64_t next = deadline, now = jobserver_now();
    news->tick = jobserver_tick(news->tick, busy);
    if (news->ticks && (next < 0 || now + news->tick < next)) {
        next = now + news->tick;
    }
    if (next < 0) {
        WaitForSingleObject(news->wake, INFINITE);
    } else {
        sleep_for(news, next - now);
    }
    news->look = true;
}

void jobserver_news_wake(struct jobserver_news *news) {
    SetEvent(news->wake);
}

unsigned jobserver_news_take_next(struct jobserver_news *news, void **owner) {
    if (news->look) {
        news->look = false;
        news->looked_at = news->watches;
        news->ticks = news->watches != NULL;
    }
    struct jobserver_watch *watch = news->looked_at;
    if (watch == NULL) {
        return 0;
    }
    news->looked_at = watch->next;
    *owner = watch->owner;
    unsigned kind = JOBSERVER_NEWS_MOVED;
    if (watch->process != NULL && WaitForSingleObject(watch->process, 0) == WAIT_OBJECT_0) {
        forget_process(watch);
        watch->exited = true;
        kind |= JOBSERVER_NEWS_EXITED;
    }
    if (watch->exited && watch->life_line != -1 && jobserver_job_is_empty(watch->life_line)) {
        watch->life_line = -1;
        kind |= JOBSERVER_NEWS_ALL_GONE;
    }
    return kind;
}

#endif
