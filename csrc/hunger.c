/*
 * Which leases want tokens.
 *
 * A process that waits for a token cannot be told from one that wants none. So a lease counts as hungry that took or
 * gave back since it last left an offer lying for a while (its grace). An empty lease that is not hungry is probed:
 * offered a token for a moment, after pauses that grow.
 */
#include "broker.h"

#define MILLISECOND INT64_C(1000000)

/* How long an offer may lie until its lease is taken not to be hungry: this many times what it usually takes. */
#define GRACE_FACTOR 8
#define SHORTEST_GRACE (2 * MILLISECOND)
#define LONGEST_GRACE (50 * MILLISECOND)

/* A process that starts reads its environment first. */
#define FIRST_GRACE (400 * MILLISECOND)

/* Pauses between probes of one lease; the second while others are hungry, the third while nobody is. */
#define FIRST_PAUSE (10 * MILLISECOND)
#define LONGEST_PAUSE_HUNGRY (40 * MILLISECOND)
#define LONGEST_PAUSE_IDLE (1000 * MILLISECOND)

int64_t jobserver_hunger_grace(const jobserver_lease *lease) {
    if (lease->fresh) {
        return FIRST_GRACE;
    }
    int64_t grace = GRACE_FACTOR * lease->latency;
    return grace < SHORTEST_GRACE ? SHORTEST_GRACE : grace > LONGEST_GRACE ? LONGEST_GRACE : grace;
}

/* A lease has just got the slot of its process. */
void jobserver_hunger_begin(jobserver_lease *lease) {
    lease->hungry = true;
    lease->fresh = true;
    lease->probing = false;
    lease->waiting = false;
    lease->offered_at = 0;
    lease->latency = 0;
    lease->probe_pause = FIRST_PAUSE;
}

void jobserver_hunger_moved(jobserver_lease *lease, int took, int gave, int64_t now) {
    if (took == 0 && gave == 0) {
        return;
    }
    if (took > 0 && lease->hungry && lease->offered_at > 0 && !lease->fresh) {
        lease->latency = (7 * lease->latency + now - lease->offered_at) / 8;
    }
    lease->fresh &= took == 0;
    lease->hungry = true;
    lease->probing = false;
    lease->probe_pause = FIRST_PAUSE;
    /* What lies there now was not offered for this: it may go to whoever is next. */
    lease->offered_at = 0;
}

bool jobserver_hunger_in_grace(const jobserver_lease *lease, int64_t now) {
    return lease->untaken > 0 && lease->offered_at > 0 && now - lease->offered_at < jobserver_hunger_grace(lease);
}

/* Notes who has left an offer lying for too long. */
void jobserver_hunger_judge(jobserver_lease *lease, int64_t now) {
    lease->probing &= lease->untaken > 0; /* or its offer fell to another, who was faster */
    if (lease->untaken > 0 && lease->offered_at > 0 && !jobserver_hunger_in_grace(lease, now)) {
        lease->hungry = false;
        lease->probing = false;
    }
}

bool jobserver_hunger_is_due(const jobserver_lease *lease, int64_t now) {
    return !lease->hungry && lease->untaken == 0 && now >= lease->probe_at;
}

/* What was withdrawn from a lease that left it lying is not offered to it again at once. */
void jobserver_hunger_withdrawn(jobserver_lease *lease, bool others_are_hungry, int64_t now) {
    if (lease->untaken > 0 || lease->hungry) {
        return;
    }
    int64_t longest = others_are_hungry ? LONGEST_PAUSE_HUNGRY : LONGEST_PAUSE_IDLE;
    lease->probe_at = now + (lease->probe_pause < longest ? lease->probe_pause : longest);
    lease->probe_pause = 2 * lease->probe_pause < longest ? 2 * lease->probe_pause : longest;
}
