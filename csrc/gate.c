/*
 * What a gatekeeper needs, who looks after the machine: to let fewer slots be used, and to sleep while nothing moves.
 */
#include "broker.h"

#include <limits.h>

void jobserver_gate_ring(jobserver_broker *broker) {
    broker->moved = true;
    if (broker->gatekeeper_waits) {
        jobserver_event_set(broker->gatekeeper);
    }
}

/* From now on at most so many slots are in use, but for the first one of each lease and for what is set aside. */
int jobserver_broker_allow(jobserver_broker *broker, int most) {
    jobserver_lock();
    int result = jobserver_broker_is_open(broker) ? 0 : JOBSERVER_CLOSED;
    if (result == 0 && most != broker->allowed) {
        broker->allowed = most;
        jobserver_news_wake(broker->news);
    }
    jobserver_unlock();
    return result;
}

/*
 * Whether the machine is to be looked at: something moved, or leases might go on if it were better. Whether they would is
 * not known: slots of an outer jobserver that are not allowed go back to it.
 */
static bool must_look(const jobserver_broker *broker) {
    return broker->moved || (broker->allowed < INT_MAX && broker->started != NULL);
}

/* One sleep of a gatekeeper: until the time, or without one until something moves. False once the broker is stopped. */
static bool sleep_on(jobserver_broker *broker, jobserver_event *event, int64_t deadline) {
    bool stopped = broker->stopped;
    jobserver_unlock();
    if (!stopped) {
        jobserver_event_wait_until(event, deadline);
        jobserver_event_clear(event);
    }
    jobserver_lock();
    return !broker->stopped;
}

/*
 * Sleeps for a while in any case, and on until something moves: so a pool in which nothing does is not looked at.
 * `event` is the caller's. Returns 0 when it is time to look, or JOBSERVER_CLOSED once the broker is stopped.
 */
int jobserver_broker_rest(jobserver_broker *broker, jobserver_event *event, int64_t interval) {
    int64_t end = jobserver_deadline(interval);
    jobserver_lock();
    bool goes_on = jobserver_broker_is_open(broker);
    broker->gatekeeper = event;
    while (goes_on && end > 0 && jobserver_now() < end) {
        goes_on = sleep_on(broker, event, end);
    }
    while (goes_on && !must_look(broker)) {
        broker->gatekeeper_waits = true;
        goes_on = sleep_on(broker, event, -1);
        broker->gatekeeper_waits = false;
    }
    broker->moved = false;
    broker->gatekeeper = NULL;
    jobserver_unlock();
    return goes_on ? 0 : JOBSERVER_CLOSED;
}
