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

static int watch(const jobserver_channel *channel, int epoll, uint32_t events) {
    struct epoll_event event = {.events = events};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, jobserver_channel_take_descriptor(channel), &event);
}

static int watch_no_more(const jobserver_channel *channel, int epoll) {
    struct epoll_event event = {.events = 0};
    return epoll_ctl(epoll, EPOLL_CTL_DEL, jobserver_channel_take_descriptor(channel), &event);
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

/* Takes the sleeper out of all queues, and keeps its epoll for the next. */
static void dismiss(jobserver_channel *channel, struct jobserver_sleeper *sleeper) {
    *sleeper->link = sleeper->next;
    if (sleeper->next != NULL) {
        sleeper->next->link = sleeper->link;
    }
    if (channel->spare_epoll < 0 && watch_no_more(channel, sleeper->epoll) == 0) {
        channel->spare_epoll = sleeper->epoll;
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

static void end(jobserver_channel *channel, struct jobserver_sleeper *sleeper) {
    jobserver_lock();
    dismiss(channel, sleeper);
    jobserver_unlock();
}

/* Each sleeper has an epoll of its own, since several in one are woken one after the other. */
int jobserver_channel_wait(jobserver_channel *channel, int64_t deadline) {
    struct jobserver_sleeper sleeper;
    if (!begin(channel, &sleeper)) {
        return jobserver_poll(jobserver_channel_take_descriptor(channel), deadline);
    }
    struct epoll_event event;
    int count = epoll_wait(sleeper.epoll, &event, 1, jobserver_milliseconds_left(deadline));
    int result = count < 0 ? -errno : count == 0 ? jobserver_nothing_until(deadline) : 1;
    end(channel, &sleeper);
    return result;
}

/* Those that sleep are watched for differently: every token wakes them, beside the one waiter that it is for. */
void jobserver_channel_retire(jobserver_channel *channel) {
    channel->retired = true;
    for (struct jobserver_sleeper *sleeper = channel->sleepers; sleeper != NULL; sleeper = sleeper->next) {
        watch_no_more(channel, sleeper->epoll);
        watch(channel, sleeper->epoll, EPOLLIN);
    }
}

#endif
