/* A broker: one pool of slots, and the leases that it serves. */
#include "broker.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

/* Between two looks, in nanoseconds. */
#define SHORTEST_TICK 1000000
#define LONGEST_TICK 50000000

int64_t jobserver_tick(int64_t last, bool busy) {
    return busy || last == 0 ? SHORTEST_TICK : 2 * last < LONGEST_TICK ? 2 * last : LONGEST_TICK;
}

void jobserver_broker_keep(jobserver_broker *broker) {
    broker->users++;
}

bool jobserver_broker_is_ours(const jobserver_broker *broker) {
    return broker->generation == jobserver_generation();
}

bool jobserver_broker_is_open(const jobserver_broker *broker) {
    return jobserver_broker_is_ours(broker) && !broker->stopped;
}

static void free_memory(jobserver_broker *broker) {
    jobserver_journal_free(broker->journal);
    free(broker);
}

/* In a forked child the directory is the parent's to remove. */
void jobserver_broker_drop(jobserver_broker *broker) {
    if (--broker->users > 0) {
        return;
    }
    jobserver_news_close(broker->news);
    jobserver_bell_close(&broker->changes);
    jobserver_lease_directory_close(broker->directory, jobserver_broker_is_ours(broker));
    if (broker->freed) {
        free_memory(broker);
    }
}

void jobserver_broker_link(jobserver_lease **list, jobserver_lease *lease) {
    lease->previous = NULL;
    lease->next = *list;
    if (*list != NULL) {
        (*list)->previous = lease;
    }
    *list = lease;
}

void jobserver_broker_unlink(jobserver_lease **list, jobserver_lease *lease) {
    if (lease->previous != NULL) {
        lease->previous->next = lease->next;
    } else {
        *list = lease->next;
    }
    if (lease->next != NULL) {
        lease->next->previous = lease->previous;
    }
}

int jobserver_broker_create(const char *directory, int limit, jobserver_broker **out) {
    jobserver_broker *broker = calloc(1, sizeof *broker);
    if (broker == NULL) {
        return -ENOMEM;
    }
    broker->limit = limit;
    broker->allowed = INT_MAX;
    broker->users = 1;
    broker->changes = (struct jobserver_bell){{-1, -1}};
    int result = jobserver_lease_directory_open(directory, &broker->directory);
    if (result == 0) {
        result = jobserver_news_open(&broker->news);
        if (result < 0) {
            jobserver_lease_directory_close(broker->directory, true);
        }
    }
    if (result < 0) {
        free(broker);
        return result;
    }
    jobserver_platform_start();
    broker->generation = jobserver_generation();
    *out = broker;
    return 0;
}

/* Acts on all that there is news of. */
static void take_news(jobserver_broker *broker) {
    void *owner;
    unsigned kind;
    while ((kind = jobserver_news_take_next(broker->news, &owner)) != 0) {
        jobserver_lease *lease = owner;
        int64_t now = jobserver_now();
        if (lease == NULL) {
            for (jobserver_lease *each = broker->started; each != NULL; each = each->next) {
                each->moved = true;
            }
            continue;
        }
        lease->moved |= (kind & JOBSERVER_NEWS_MOVED) != 0;
        /* Those who are gone come first: the process may be the last of them. */
        if (kind & JOBSERVER_NEWS_ALL_GONE) {
            jobserver_lease_all_gone(lease, now);
        }
        if (kind & JOBSERVER_NEWS_EXITED) {
            jobserver_lease_exited(lease, now);
        }
    }
}

/* Looks at the pipes that bytes moved in, and ends what lasts too long. */
static void refresh(jobserver_broker *broker) {
    int64_t now = jobserver_now();
    jobserver_lease *next;
    for (jobserver_lease *lease = broker->started; lease != NULL; lease = next) {
        next = lease->next;
        if (lease->moved) {
            jobserver_lease_refresh(lease, now);
        }
        if (lease->state == JOBSERVER_LEASE_ORPHANS && now >= lease->orphans_until) {
            jobserver_lease_finish(lease, now);
        }
    }
}

/* Before slots are given out: so the journal never has more in use than there are, unless the limit was lowered. */
static void note_limit(jobserver_broker *broker) {
    if (broker->journal != NULL) {
        jobserver_journal_limit(broker, jobserver_now());
    }
}

/* Nobody comes to a queue that is served no more. */
static void end_waits(jobserver_broker *broker) {
    for (jobserver_lease *lease = broker->waiting; lease != NULL; lease = lease->next) {
        jobserver_lease_ring(lease);
    }
    for (jobserver_lease *lease = broker->started; lease != NULL; lease = lease->next) {
        jobserver_lease_ring(lease);
    }
}

void jobserver_broker_fail(jobserver_broker *broker, int error) {
    broker->failure = error;
    if (error < 0) {
        end_waits(broker);
    }
}

/*
 * Serves until jobserver_broker_stop, also if that was before. The lock is held but for the sleep. Returns 0, or -EBUSY if
 * another thread serves already, or another process.
 */
int jobserver_broker_serve(jobserver_broker *broker) {
    jobserver_lock();
    if (broker->serving || !jobserver_broker_is_open(broker)) {
        int result = broker->stopped && jobserver_broker_is_ours(broker) ? 0 : -EBUSY;
        jobserver_unlock();
        return result;
    }
    jobserver_broker_keep(broker);
    broker->serving = true;
    while (!broker->stopped) {
        take_news(broker);
        refresh(broker);
        note_limit(broker);
        int64_t deadline = jobserver_share(broker, jobserver_now());
        bool busy = broker->busy;
        broker->busy = false;
        if (busy) {
            jobserver_gate_ring(broker);
        }
        jobserver_unlock();
        jobserver_news_wait(broker->news, deadline, busy);
        jobserver_lock();
    }
    broker->serving = false;
    end_waits(broker);
    jobserver_broker_drop(broker);
    jobserver_unlock();
    return 0;
}

/* Wakes every thread that serves the broker or waits for one of its leases: each sees that it was stopped. */
static void wake_all(jobserver_broker *broker) {
    jobserver_news_wake(broker->news);
    if (broker->source != NULL) {
        jobserver_event_set(broker->source->event);
    }
    if (broker->gatekeeper != NULL) {
        jobserver_event_set(broker->gatekeeper);
    }
    end_waits(broker);
}

/*
 * Ends the serving for good. Processes go on with what they hold; waits, and all later calls, end with JOBSERVER_CLOSED.
 * Descriptors are closed and the directory is removed when no thread serves any more and the last lease was freed. Never
 * blocks for long. Stopping again changes nothing.
 */
void jobserver_broker_stop(jobserver_broker *broker) {
    jobserver_lock();
    if (!broker->stopped) {
        broker->stopped = true;
        if (jobserver_broker_is_ours(broker)) {
            wake_all(broker);
        }
        jobserver_broker_drop(broker);
    }
    jobserver_unlock();
}

/* Stops the broker and gives up the owner's handle. The last lease or thread that uses the broker frees its memory. */
void jobserver_broker_free(jobserver_broker *broker) {
    jobserver_broker_stop(broker);
    jobserver_lock();
    bool last = broker->users == 0;
    broker->freed = true;
    jobserver_unlock();
    if (last) {
        free_memory(broker);
    }
}

/* Changes the limit. Slots in use beyond a smaller one stay in use until their jobs end. */
int jobserver_broker_resize(jobserver_broker *broker, int limit) {
    jobserver_lock();
    int result = jobserver_broker_is_open(broker) ? 0 : JOBSERVER_CLOSED;
    if (result == 0) {
        broker->limit = limit;
        jobserver_news_wake(broker->news);
    }
    jobserver_unlock();
    return result;
}

/* Fills the report of an open broker in. The caller holds the lock. */
static void describe(jobserver_broker *broker, jobserver_broker_report *report) {
    *report = (jobserver_broker_report){.limit = broker->limit};
    int64_t now = jobserver_now();
    for (jobserver_lease *lease = broker->started; lease != NULL; lease = lease->next) {
        jobserver_lease_refresh(lease, now);
        report->in_use += jobserver_lease_slots(lease);
    }
    report->held_back = broker->held_back;
    for (const jobserver_lease *lease = broker->waiting; lease != NULL; lease = lease->next) {
        report->queued += lease->state == JOBSERVER_LEASE_QUEUED;
    }
    jobserver_news_wake(broker->news);
}

/* Tells what the broker has now. 0, or JOBSERVER_CLOSED with the report as it was. */
int jobserver_broker_describe(jobserver_broker *broker, jobserver_broker_report *report) {
    jobserver_lock();
    int result = jobserver_broker_is_open(broker) ? 0 : JOBSERVER_CLOSED;
    if (result == 0) {
        describe(broker, report);
    }
    jobserver_unlock();
    return result;
}
