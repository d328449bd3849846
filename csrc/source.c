/*
 * What the slots of a broker come from, if it has none of its own. A source asks what is needed, grants slots and
 * reclaims those that nobody uses, in a thread that sleeps on the source's event while there is nothing to do.
 */
#include "broker.h"

#include <errno.h>

/* When busy leases have taken so many that fewer are left the source is told each time. */
#define FEW 3

int jobserver_source_attach(struct jobserver_source *source, jobserver_broker *broker) {
    jobserver_lock();
    int result = !jobserver_broker_is_open(broker) ? JOBSERVER_CLOSED : broker->source != NULL ? -EBUSY : 0;
    if (result == 0) {
        source->broker = broker;
        broker->source = source;
        jobserver_broker_keep(broker);
        jobserver_news_wake(broker->news);
    }
    jobserver_unlock();
    return result;
}

void jobserver_source_fail(jobserver_broker *broker, int error) {
    jobserver_lock();
    jobserver_broker_fail(broker, error);
    jobserver_unlock();
}

void jobserver_source_detach(struct jobserver_source *source, int error) {
    jobserver_broker *broker = source->broker;
    if (broker == NULL) {
        return;
    }
    jobserver_lock();
    broker->source = NULL;
    broker->limit -= source->granted;
    jobserver_broker_fail(broker, error);
    jobserver_broker_drop(broker);
    jobserver_unlock();
}

bool jobserver_source_ask(struct jobserver_source *source, struct jobserver_demand *demand) {
    jobserver_event_clear(source->event);
    jobserver_lock();
    bool stopped = source->broker->stopped;
    source->rung = false;
    source->told = *demand = source->demand;
    jobserver_unlock();
    return !stopped;
}

/* Nothing more is wanted until the broker has shared these out. */
void jobserver_source_grant(struct jobserver_source *source, int count) {
    jobserver_lock();
    source->granted += count;
    source->broker->limit += count;
    source->demand.wanting = false;
    source->demand.unused += count;
    jobserver_news_wake(source->broker->news);
    jobserver_unlock();
}

int jobserver_source_reclaim(struct jobserver_source *source, int most) {
    jobserver_lock();
    int count = jobserver_share_reclaim(source->broker, most, jobserver_now());
    source->granted -= count;
    source->demand.unused -= count;
    source->demand.spare -= count < source->demand.spare ? count : source->demand.spare;
    jobserver_news_wake(source->broker->news);
    jobserver_unlock();
    return count;
}

void jobserver_source_tolerate(struct jobserver_source *source, int spare) {
    jobserver_lock();
    source->tolerated = spare;
    jobserver_unlock();
}

/* A source that has not done yet what it was woken for is not woken again. */
void jobserver_source_need(struct jobserver_source *source, const struct jobserver_demand *now) {
    struct jobserver_demand *told = &source->told;
    source->demand = *now;
    source->tolerated = now->spare < source->tolerated ? now->spare : source->tolerated;
    bool more = now->wanting && !told->wanting;
    bool no_more = !now->wanting && told->wanting && !now->moving;
    bool idle = now->spare > source->tolerated && !now->moving;
    bool unused = now->unused > 0 && told->unused == 0;
    bool fewer = now->moving && now->unused < FEW && now->unused < told->unused;
    told->unused = now->unused > told->unused && !unused ? now->unused : told->unused;
    if ((more || no_more || idle || unused || fewer) && !source->rung) {
        source->rung = true;
        jobserver_event_set(source->event);
    }
}
