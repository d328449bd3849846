/*
 * Linux: sleeping so that one token wakes one waiter, in the order in which they fell asleep.
 *
 * Why not a blocking read: a thread that is woken by a token as its process exits takes the token and dies with it. A
 * sleeper in an epoll takes nothing, and exit() can take it out of the pipe's queue.
 */
#include "posix.h"

#if defined(__linux__) && !defined(JOBSERVER_PORTABLE)

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#ifndef EPOLLEXCLUSIVE
#define EPOLLEXCLUSIVE (1U << 28)
#endif

enum source { OTHER, POOL };

static int watch(const jobserver_channel *channel, int epoll, uint32_t events) {
    struct epoll_event event = {.events = events, .data.u32 = POOL};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, jobserver_channel_take_descriptor(channel), &event);
}

static void watch_no_more(int epoll, int descriptor) {
    struct epoll_event event = {.events = 0};
    epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, &event);
}

/* What is named twice is watched once. */
static int watch_others(int epoll, const struct jobserver_until *until) {
    for (int index = 0; index < until->count; index++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = OTHER};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, (int)until->others[index], &event) < 0 && errno != EEXIST) {
            return -errno;
        }
    }
    return 0;
}

static void watch_others_no_more(int epoll, const struct jobserver_until *until) {
    for (int index = 0; index < until->count; index++) {
        watch_no_more(epoll, (int)until->others[index]);
    }
}

/* Takes the epoll out of the pipe's queue, if it lingers there. */
static void leave_queue(jobserver_channel *channel, int epoll) {
    if (atomic_exchange(&channel->lingers, false)) {
        watch_no_more(epoll, jobserver_channel_take_descriptor(channel));
    }
}

/*
 * Puts the sleeper at the end of the pipe's queue, where it stays as long as the pipe is watched: so it is watched anew
 * for each sleep, or those who came first would be first for ever. False if poll must do.
 */
static bool enlist(jobserver_channel *channel, struct jobserver_sleeper *sleeper) {
    int spare = channel->spare_epoll;
    channel->spare_epoll = -1;
    sleeper->epoll = spare >= 0 ? spare : jobserver_above_standard(epoll_create1(EPOLL_CLOEXEC));
    if (sleeper->epoll < 0) {
        return false;
    }
    if (spare >= 0) {
        leave_queue(channel, spare);
    }
    if (watch(channel, sleeper->epoll, EPOLLIN | EPOLLEXCLUSIVE) < 0) {
        close(sleeper->epoll);
        return false;
    }
    sleeper->next = channel->sleepers;
    sleeper->link = &channel->sleepers;
    if (sleeper->next != NULL) {
        sleeper->next->link = &sleeper->next;
    }
    channel->sleepers = sleeper;
    return true;
}

/*
 * Takes the sleeper off the list, and keeps its epoll for the next. That may linger in the pipe's queue, where an epoll
 * in which nobody sleeps takes no wake-up from anybody: so one more system call does not stand between the token and
 * who waited for it. A release ends that, so that hardly more linger than tokens are held. None does in a process that
 * exits.
 */
static void dismiss(jobserver_channel *channel, struct jobserver_sleeper *sleeper) {
    *sleeper->link = sleeper->next;
    if (sleeper->next != NULL) {
        sleeper->next->link = sleeper->link;
    }
    if (channel->spare_epoll < 0) {
        channel->spare_epoll = sleeper->epoll;
        atomic_store(&channel->lingers, true);
        if (channel->retired) {
            leave_queue(channel, sleeper->epoll);
        }
    } else {
        close(sleeper->epoll);
    }
}

/* Whether the caller now sleeps exclusively. What a socket or a device holds cannot be passed on one by one. */
static bool begin(jobserver_channel *channel, struct jobserver_sleeper *sleeper) {
    jobserver_lock();
    bool begun = channel->kind == JOBSERVER_PIPE && !channel->retired && enlist(channel, sleeper);
    jobserver_unlock();
    return begun;
}

/* Takes the epoll that is kept out of the queue. The caller holds the lock. */
static void linger_no_more(jobserver_channel *channel) {
    if (channel->spare_epoll >= 0) {
        leave_queue(channel, channel->spare_epoll);
    }
}

/* Only who was woken for a token lets its epoll linger. */
static void end(jobserver_channel *channel, struct jobserver_sleeper *sleeper, bool may_linger) {
    jobserver_lock();
    dismiss(channel, sleeper);
    if (!may_linger) {
        linger_no_more(channel);
    }
    jobserver_unlock();
}

/* Some give back with the lock held. While anybody has it the epoll stays: until the next release, or the next sleep. */
void jobserver_system_linger_no_more(jobserver_channel *channel) {
    if (jobserver_try_lock()) {
        linger_no_more(channel);
        jobserver_unlock();
    }
}

/* Sleeps; the results are those of jobserver_channel_wait. */
static int wait_in(int epoll, const struct jobserver_until *until) {
    struct epoll_event events[8];
    int count = epoll_wait(epoll, events, 8, jobserver_milliseconds_left(until->deadline));
    if (count <= 0) {
        return count < 0 ? -errno : jobserver_nothing_until(until->deadline);
    }
    for (int index = 0; index < count; index++) {
        if (events[index].data.u32 == POOL) {
            return 1;
        }
    }
    return JOBSERVER_READY;
}

/* Each sleeper has an epoll of its own, since several in one are woken one after the other. */
int jobserver_channel_wait(jobserver_channel *channel, const struct jobserver_until *until) {
    struct jobserver_sleeper sleeper;
    if (!begin(channel, &sleeper)) {
        return jobserver_poll(jobserver_channel_take_descriptor(channel), until);
    }
    int result = watch_others(sleeper.epoll, until);
    if (result == 0) {
        result = wait_in(sleeper.epoll, until);
    }
    watch_others_no_more(sleeper.epoll, until);
    end(channel, &sleeper, result == 1);
    return result;
}

/* Those that sleep are watched for differently: every token wakes them, beside the one waiter that it is for. */
void jobserver_channel_retire(jobserver_channel *channel) {
    channel->retired = true;
    linger_no_more(channel);
    for (struct jobserver_sleeper *sleeper = channel->sleepers; sleeper != NULL; sleeper = sleeper->next) {
        watch_no_more(sleeper->epoll, jobserver_channel_take_descriptor(channel));
        watch(channel, sleeper->epoll, EPOLLIN);
    }
}

#endif
