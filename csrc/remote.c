/*
 * Leases for processes at the far end of a connection: for a program that serves others, and that sleeps in a loop of
 * its own. It learns there of what changed, instead of waiting for each lease.
 */
#include "broker.h"

/*
 * Returns a descriptor, the broker's own, that is readable after the state of any lease or a place in the queue has
 * changed; or a negated errno. Whoever waits for it reads it empty (it does not block), and looks at the leases then.
 */
int jobserver_broker_watch(jobserver_broker *broker) {
    jobserver_lock();
    int result = jobserver_broker_is_open(broker) ? 0 : JOBSERVER_CLOSED;
    if (result == 0 && broker->changes.ends[0] < 0) {
        result = jobserver_bell_open(&broker->changes);
    }
    if (result == 0) {
        result = broker->changes.ends[0];
    }
    jobserver_unlock();
    return result;
}

/*
 * Returns a descriptor, the broker's own, on the lock that keeps its fifos from being swept away: a process that has a
 * copy keeps them beyond the end of this one.
 */
int jobserver_broker_lock(jobserver_broker *broker) {
    jobserver_lock();
    int result = JOBSERVER_CLOSED;
    if (jobserver_broker_is_open(broker)) {
        result = jobserver_lease_directory_lock(broker->directory);
    }
    jobserver_unlock();
    return result;
}

/*
 * Says that the process of a lease is gone, which nobody watches: as if there were news of its end. A lease that had
 * none ends. Harmless if the lease has ended already.
 */
int jobserver_lease_leave(jobserver_lease *lease) {
    jobserver_lock();
    int result = jobserver_broker_is_ours(lease->broker) ? 0 : JOBSERVER_CLOSED;
    if (result == 0) {
        int64_t now = jobserver_now();
        if (lease->state < JOBSERVER_LEASE_STARTED) {
            jobserver_lease_finish(lease, now);
        } else {
            jobserver_lease_exited(lease, now);
        }
        jobserver_news_wake(lease->broker->news);
    }
    jobserver_unlock();
    return result;
}
