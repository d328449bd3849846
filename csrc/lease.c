/* One lease: its life, from its opening to its end. */
#include "broker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void jobserver_lease_ring(jobserver_lease *lease) {
    for (struct jobserver_lease_waiter *waiter = lease->waiters; waiter != NULL; waiter = waiter->next) {
        jobserver_bell_ring(&waiter->bell);
    }
    jobserver_bell_ring(&lease->broker->changes);
}

void jobserver_lease_let_start(jobserver_lease *lease, int64_t now) {
    jobserver_broker_unlink(&lease->broker->waiting, lease);
    jobserver_broker_link(&lease->broker->started, lease);
    lease->state = JOBSERVER_LEASE_STARTED;
    lease->own = 1;
    lease->broker->out++;
    lease->broker->busy = true;
    lease->changed_at = now;
    lease->report.queue_time += now - lease->queued_at;
    jobserver_lease_note(lease, now);
    jobserver_hunger_begin(lease);
    jobserver_lease_ring(lease);
}

static bool has_started(const jobserver_lease *lease) {
    return lease->state == JOBSERVER_LEASE_STARTED || lease->state == JOBSERVER_LEASE_ORPHANS;
}

void jobserver_lease_finish(jobserver_lease *lease, int64_t now) {
    jobserver_broker *broker = lease->broker;
    if (lease->state == JOBSERVER_LEASE_ENDED) {
        return;
    }
    if (has_started(lease)) {
        jobserver_lease_refresh(lease, now);
        jobserver_lease_withdraw(lease, lease->untaken);
        lease->report.lost = lease->given - lease->untaken;
        lease->report.orphaned += lease->state == JOBSERVER_LEASE_ORPHANS;
        broker->out -= lease->given + lease->own;
        lease->given = lease->untaken = lease->own = 0;
        jobserver_lease_note(lease, now);
    }
    jobserver_broker_unlink(has_started(lease) ? &broker->started : &broker->waiting, lease);
    lease->state = JOBSERVER_LEASE_ENDED;
    jobserver_watch_remove(broker->news, lease->watch);
    jobserver_lease_pipes_close(&lease->pipes, true);
    jobserver_lease_ring(lease);
}

/* Offers are taken back: who is left gives back what it holds, and gets nothing more. */
void jobserver_lease_exited(jobserver_lease *lease, int64_t now) {
    if (lease->state != JOBSERVER_LEASE_STARTED) {
        return;
    }
    if (jobserver_lease_pipes_all_gone(&lease->pipes) || lease->terms.orphan_timeout == 0) {
        jobserver_lease_finish(lease, now);
        return;
    }
    jobserver_lease_refresh(lease, now);
    jobserver_lease_withdraw(lease, lease->untaken);
    lease->state = JOBSERVER_LEASE_ORPHANS;
    lease->report.orphaned = 1;
    lease->orphans_until = lease->terms.orphan_timeout < 0 ? INT64_MAX : now + lease->terms.orphan_timeout;
    jobserver_lease_ring(lease);
}

void jobserver_lease_all_gone(jobserver_lease *lease, int64_t now) {
    if (lease->state == JOBSERVER_LEASE_ORPHANS) {
        lease->report.orphaned = 0; /* jobserver_lease_finish adds one, and one more for those who are still there */
        jobserver_lease_finish(lease, now);
    }
}

/* Makes a lease that has no slot yet, and its pipes. */
int jobserver_lease_open(jobserver_broker *broker, const jobserver_lease_terms *terms, jobserver_lease **out) {
    jobserver_lease *lease = calloc(1, sizeof *lease);
    if (lease == NULL) {
        return -ENOMEM;
    }
    lease->handles = 1;
    lease->broker = broker;
    lease->terms = *terms;
    jobserver_lock();
    int result = jobserver_broker_is_open(broker) ? 0 : JOBSERVER_CLOSED;
    if (result == 0) {
        lease->number = (int)++broker->leases_made;
        result =
            jobserver_lease_pipes_open(broker->directory, broker->leases_made - 1, terms->style == JOBSERVER_LEASE_FIFO,
                                       terms->life_line, broker->limit, &lease->pipes);
    }
    if (result == 0) {
        result = jobserver_watch_add(broker->news, &lease->pipes, lease, &lease->watch);
        if (result < 0) {
            jobserver_lease_pipes_close(&lease->pipes, true);
        }
    }
    if (result == 0) {
        jobserver_broker_link(&broker->waiting, lease);
        jobserver_broker_keep(broker);
        *out = lease;
    } else {
        free(lease);
    }
    jobserver_unlock();
    return result;
}

/* Gives up one handle of the lease's memory: its owner's, or an observer's. The caller holds the lock. */
static void drop_handle(jobserver_lease *lease) {
    if (--lease->handles == 0) {
        free(lease);
    }
}

/*
 * Ends the lease first, whatever its process does. In a forked child it only forgets it. An observer of the lease may
 * still ask for its report.
 */
void jobserver_lease_free(jobserver_lease *lease) {
    jobserver_broker *broker = lease->broker;
    jobserver_lock();
    if (jobserver_broker_is_ours(broker)) {
        jobserver_lease_finish(lease, jobserver_now());
        jobserver_news_wake(broker->news);
    } else {
        jobserver_lease_pipes_close(&lease->pipes, false);
        lease->state = JOBSERVER_LEASE_ENDED;
    }
    jobserver_broker_drop(broker);
    drop_handle(lease);
    jobserver_unlock();
}

/*
 * Makes a second handle of a lease, for jobserver_lease_describe alone. It does not keep the lease from ending when its
 * owner frees it. The caller gives the handle up with jobserver_lease_forget. Returns the lease.
 */
jobserver_lease *jobserver_lease_observe(jobserver_lease *lease) {
    jobserver_lock();
    lease->handles++;
    jobserver_unlock();
    return lease;
}

/* Gives up what jobserver_lease_observe returned. */
void jobserver_lease_forget(jobserver_lease *lease) {
    jobserver_lock();
    drop_handle(lease);
    jobserver_unlock();
}

int jobserver_lease_descriptors(jobserver_lease *lease, int descriptors[3]) {
    jobserver_lock();
    memcpy(descriptors, lease->pipes.for_child, sizeof lease->pipes.for_child);
    jobserver_unlock();
    return 0;
}

/* The path of its fifo, or "" for one with descriptors. -ERANGE if it does not fit. */
int jobserver_lease_path(jobserver_lease *lease, char *path, size_t size) {
    jobserver_lock();
    const char *own = lease->pipes.path == NULL ? "" : lease->pipes.path;
    bool fits = strlen(own) < size;
    if (fits) {
        strcpy(path, own);
    }
    jobserver_unlock();
    return fits ? 0 : -ERANGE;
}

static void add_waiter(jobserver_lease *lease, struct jobserver_lease_waiter *waiter) {
    waiter->next = lease->waiters;
    lease->waiters = waiter;
}

static void remove_waiter(jobserver_lease *lease, const struct jobserver_lease_waiter *waiter) {
    struct jobserver_lease_waiter **link = &lease->waiters;
    while (*link != waiter) {
        link = &(*link)->next;
    }
    *link = waiter->next;
}

/* Why the lease will not come into this state any more, or 0. */
static int why_never(const jobserver_lease *lease, enum jobserver_lease_state state) {
    bool needs_slots = state == JOBSERVER_LEASE_STARTED;
    return lease->broker->stopped ? JOBSERVER_CLOSED : needs_slots ? lease->broker->failure : 0;
}

/* Sleeps until the lease is in this state or a later one. 0, -EINTR, -ETIMEDOUT or JOBSERVER_CLOSED. With the lock. */
static int wait_for(jobserver_lease *lease, enum jobserver_lease_state state, int64_t timeout) {
    int64_t deadline = jobserver_deadline(timeout);
    struct jobserver_lease_waiter waiter;
    if (lease->state >= state) {
        return 0;
    }
    int result = why_never(lease, state);
    if (result < 0 || timeout == 0) {
        return result < 0 ? result : -ETIMEDOUT;
    }
    result = jobserver_bell_open(&waiter.bell);
    if (result < 0) {
        return result;
    }
    add_waiter(lease, &waiter);
    while (result == 0 && lease->state < state) {
        jobserver_unlock();
        result = jobserver_bell_wait(&waiter.bell, deadline);
        jobserver_lock();
        result = result == 0 && lease->state < state ? why_never(lease, state) : result;
    }
    remove_waiter(lease, &waiter);
    jobserver_bell_close(&waiter.bell);
    return lease->state >= state ? 0 : result;
}

/* Waits for the slots to start with. A wait that ends early keeps its place in the queue for the next call. */
int jobserver_lease_start(jobserver_lease *lease, int64_t timeout) {
    jobserver_lock();
    int result = jobserver_broker_is_ours(lease->broker) ? 0 : JOBSERVER_CLOSED;
    bool taken = lease->state > JOBSERVER_LEASE_STARTED || (lease->state == JOBSERVER_LEASE_STARTED && lease->claimed);
    if (result == 0 && taken) {
        result = JOBSERVER_LEASE_STATE;
    }
    if (result == 0 && lease->state == JOBSERVER_LEASE_OPEN) {
        lease->state = JOBSERVER_LEASE_QUEUED;
        lease->ticket = ++lease->broker->tickets;
        lease->queued_at = jobserver_now();
        jobserver_news_wake(lease->broker->news);
    }
    if (result == 0 && timeout == 0 && !lease->broker->stopped) {
        jobserver_share(lease->broker, jobserver_now()); /* who does not wait has what is free now */
    }
    if (result == 0) {
        result = wait_for(lease, JOBSERVER_LEASE_STARTED, timeout);
        lease->claimed = result == 0;
    }
    jobserver_unlock();
    return result;
}

/* The reverse of starting, for a lease that nobody has used. */
void jobserver_lease_give_up(jobserver_lease *lease) {
    jobserver_broker *broker = lease->broker;
    jobserver_lock();
    if (jobserver_broker_is_ours(broker)) {
        if (lease->state == JOBSERVER_LEASE_STARTED) {
            jobserver_lease_withdraw(lease, lease->untaken);
            broker->out -= lease->own;
            lease->own = 0;
            jobserver_lease_note(lease, jobserver_now());
            jobserver_broker_unlink(&broker->started, lease);
            jobserver_broker_link(&broker->waiting, lease);
        }
        if (lease->state <= JOBSERVER_LEASE_STARTED) {
            lease->state = JOBSERVER_LEASE_OPEN;
            lease->claimed = false;
        }
        jobserver_news_wake(broker->news);
    }
    jobserver_unlock();
}

/* Says which process runs on the lease from now on, which has inherited what it needs; 0 for one that is not watched. */
int jobserver_lease_spawned(jobserver_lease *lease, int process) {
    jobserver_lock();
    int result = jobserver_broker_is_ours(lease->broker) ? 0 : JOBSERVER_CLOSED;
    if (result == 0 && lease->state != JOBSERVER_LEASE_STARTED) {
        result = JOBSERVER_LEASE_STATE;
    }
    if (result == 0) {
        jobserver_lease_pipes_close_child(&lease->pipes);
        result = process > 0 ? jobserver_watch_process(lease->broker->news, lease->watch, process) : 0;
        jobserver_news_wake(lease->broker->news);
    }
    jobserver_unlock();
    return result;
}

/* Takes everything back now. Harmless if the lease has ended already. */
int jobserver_lease_end(jobserver_lease *lease) {
    jobserver_lock();
    int result = jobserver_broker_is_ours(lease->broker) ? 0 : JOBSERVER_CLOSED;
    if (result == 0) {
        jobserver_lease_finish(lease, jobserver_now());
        jobserver_news_wake(lease->broker->news);
    }
    jobserver_unlock();
    return result;
}

/* Waits until the lease has ended: with its process, and with those that it left behind if they are waited for. */
int jobserver_lease_wait(jobserver_lease *lease, int64_t timeout) {
    jobserver_lock();
    int result = jobserver_broker_is_ours(lease->broker) ? 0 : JOBSERVER_CLOSED;
    if (result == 0) {
        result = wait_for(lease, JOBSERVER_LEASE_ENDED, timeout);
    }
    jobserver_unlock();
    return result;
}

static int queued_before(const jobserver_lease *lease) {
    int count = 0;
    if (lease->state != JOBSERVER_LEASE_QUEUED || !jobserver_broker_is_ours(lease->broker)) {
        return 0; /* in a forked child the others may have been freed */
    }
    for (const jobserver_lease *other = lease->broker->waiting; other != NULL; other = other->next) {
        count += other->state == JOBSERVER_LEASE_QUEUED && other->ticket < lease->ticket;
    }
    return count;
}

/* Tells what the lease has now, or had at its end: then it may have been freed, and its broker too. Returns 0. */
int jobserver_lease_describe(jobserver_lease *lease, jobserver_lease_report *report) {
    jobserver_lock();
    int64_t now = jobserver_now();
    if (has_started(lease) && jobserver_broker_is_ours(lease->broker)) {
        jobserver_lease_refresh(lease, now);
        jobserver_news_wake(lease->broker->news);
    }
    *report = lease->report;
    report->state = (int)lease->state;
    report->queued_before = queued_before(lease);
    report->slots = jobserver_lease_slots(lease);
    report->untaken = lease->untaken;
    jobserver_unlock();
    return 0;
}
