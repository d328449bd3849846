/*
 * Who gets the next token.
 *
 * Whatever is not held is offered: it lies in the pipes of leases and can be taken without asking anybody. Sharing
 * decides how many are to lie where, withdraws what lies elsewhere, and offers it there.
 *
 * Hungry leases (hunger.c) come first, those that use least for their weight before the others, and what a lease gives
 * back is shared out anew each time: else it would take it again before the others, for ever.
 */
#include "broker.h"

/* No pool has so many slots. */
#define MOST_ROOM 1000000000

static int64_t earlier(int64_t one, int64_t other) {
    return one < 0 || (other >= 0 && other < one) ? other : one;
}

static bool takes_part(const jobserver_lease *lease) {
    return lease->state == JOBSERVER_LEASE_STARTED;
}

/* How many more it may be offered, by its own limit. */
static int room_of(const jobserver_lease *lease) {
    if (lease->terms.maximum == 0) {
        return MOST_ROOM;
    }
    int room = lease->terms.maximum - jobserver_lease_slots(lease) - lease->wanted;
    return room > 0 ? room : 0;
}

/* Whether there is a token in its pipes beyond those that are to lie there so far. */
static bool has_more(const jobserver_lease *lease) {
    return lease->untaken > lease->wanted;
}

/*
 * Whether `one` comes before `other`: it uses less for its weight, or was served longer ago. Surplus stays where it is
 * if it may: moving it raises news, and would have to be decided upon again.
 */
static bool comes_before(const jobserver_lease *one, const jobserver_lease *other, bool surplus) {
    double first = (jobserver_lease_slots(one) + one->wanted) / one->terms.weight;
    double second = (jobserver_lease_slots(other) + other->wanted) / other->terms.weight;
    if (first < second || second < first) {
        return first < second;
    }
    if (surplus && has_more(one) != has_more(other)) {
        return has_more(one);
    }
    return one->served_at < other->served_at;
}

/* What sharing knows while it gives out one token after the other. */
struct round {
    jobserver_broker *broker;
    int64_t now;
    int left;
    bool any_hungry;
    bool probe_is_out;
    bool queue_waits;
    int most;   /* how many more may be used than now and than is set aside */
    bool gated; /* none may */
    struct jobserver_demand demand;
};

enum turn { OF_THE_HUNGRY, OF_THOSE_WITH_ONE, OF_THE_EMPTY, OF_SURPLUS };

static bool has_turn(const struct round *round, const jobserver_lease *lease, enum turn turn) {
    if (!takes_part(lease) || room_of(lease) == 0) {
        return false;
    }
    switch (turn) {
    case OF_THE_HUNGRY:
        return lease->wanted == 0 &&
               (lease->hungry || (!round->probe_is_out && jobserver_hunger_is_due(lease, round->now)));
    case OF_THOSE_WITH_ONE:
        return lease->wanted == 0 && lease->untaken > 0;
    case OF_THE_EMPTY:
        return lease->wanted == 0;
    case OF_SURPLUS:
        return lease->hungry || !round->any_hungry;
    }
    return false;
}

/* The first of those whose turn it is, or null; *count is how many they are. */
static jobserver_lease *first_of(const struct round *round, enum turn turn, int *count) {
    jobserver_lease *first = NULL;
    *count = 0;
    for (jobserver_lease *lease = round->broker->started; lease != NULL; lease = lease->next) {
        if (has_turn(round, lease, turn)) {
            first = first == NULL || comes_before(lease, first, turn == OF_SURPLUS) ? lease : first;
            ++*count;
        }
    }
    return first;
}

/* Gives one token after the other to whoever is first then. A large surplus goes out in parts that get smaller. */
static void deal(struct round *round, enum turn turn) {
    int count;
    jobserver_lease *first;
    while (round->left > 0 && (first = first_of(round, turn, &count)) != NULL) {
        int part = turn != OF_SURPLUS ? 1 : count == 1 ? round->left : round->left / (2 * count);
        part = part < 1 ? 1 : part;
        part = part < room_of(first) ? part : room_of(first);
        if (turn == OF_THE_HUNGRY && !first->hungry) {
            first->probing = round->probe_is_out = true;
        }
        first->wanted += part;
        round->left -= part;
    }
}

/* What is set aside for leases, which nobody may take away and no gate holds back. Returns how much. */
static int set_aside(struct round *round) {
    int before = round->left;
    for (jobserver_lease *lease = round->broker->started; lease != NULL && round->left > 0; lease = lease->next) {
        int aside = takes_part(lease) ? lease->terms.minimum - jobserver_lease_slots(lease) : 0;
        lease->wanted = aside < 0 ? 0 : aside < round->left ? aside : round->left;
        round->left -= lease->wanted;
    }
    return before - round->left;
}

/* One offer that has just been made stays where it is, if gates do not hold it back. */
static void keep_fresh(struct round *round) {
    for (jobserver_lease *lease = round->broker->started; lease != NULL && round->left > 0; lease = lease->next) {
        if (takes_part(lease) && lease->wanted == 0 && round->most > 0 &&
            jobserver_hunger_in_grace(lease, round->now)) {
            lease->wanted = 1;
            round->left--;
            round->most--;
        }
    }
}

/* Holds back what is free beyond what gates allow. */
static void pass_gates(struct round *round) {
    round->gated = round->most == 0;
    round->broker->held_back = round->left > round->most ? round->left - round->most : 0;
    round->left -= round->broker->held_back;
}

static jobserver_lease *first_in_queue(const jobserver_broker *broker) {
    jobserver_lease *first = NULL;
    for (jobserver_lease *lease = broker->waiting; lease != NULL; lease = lease->next) {
        if (lease->state == JOBSERVER_LEASE_QUEUED && (first == NULL || lease->ticket < first->ticket)) {
            first = lease;
        }
    }
    return first;
}

static int needed_to_start(const jobserver_lease *lease) {
    return lease->terms.minimum > 1 ? lease->terms.minimum : 1;
}

static void withdraw_surplus(const struct round *round, jobserver_lease *lease) {
    int surplus = lease->untaken - lease->wanted;
    if (surplus > 0 && jobserver_lease_withdraw(lease, surplus) > 0) {
        jobserver_hunger_withdrawn(lease, round->any_hungry, round->now);
    }
}

/* Who takes while others are withdrawn from is faster: then there is less to offer. */
static void offer_missing(const struct round *round, jobserver_lease *lease) {
    int missing = lease->wanted - lease->untaken;
    int free = round->broker->limit - round->broker->out;
    missing = missing < free ? missing : free;
    if (missing > 0 && jobserver_lease_offer(lease, missing) > 0) {
        lease->served_at = round->now;
        lease->offered_at = round->now;
    } else if (lease->untaken > 0 && lease->offered_at == 0) {
        lease->offered_at = round->now; /* what it gave back is its next offer */
    }
    bool waits = lease->hungry && lease->untaken == 0 && !lease->fresh && room_of(lease) > 0;
    lease->report.waits += waits && !lease->waiting;
    lease->waiting = waits;
}

/* When something may have to change although nothing moves. */
static int64_t next_time(const struct round *round) {
    bool outer = round->broker->source != NULL; /* others may want what lies in the pipes, or have what is wanted */
    bool wanted = round->queue_waits, probed = false, lying = false;
    int64_t grace_ends = -1, probe_at = -1, orphans_until = -1;
    for (const jobserver_lease *lease = round->broker->started; lease != NULL; lease = lease->next) {
        if (!takes_part(lease)) {
            orphans_until = earlier(orphans_until, lease->orphans_until);
        } else if (lease->untaken > 0) {
            lying = true;
            if (jobserver_hunger_in_grace(lease, round->now)) {
                grace_ends = earlier(grace_ends, lease->offered_at + jobserver_hunger_grace(lease));
            }
        } else if (room_of(lease) > 0) {
            wanted |= lease->hungry;
            probed |= !lease->hungry;
            if (!lease->hungry && lease->probe_at > round->now) {
                probe_at = earlier(probe_at, lease->probe_at);
            }
        }
    }
    int64_t next = orphans_until;
    if (wanted || probed || outer) {
        next = earlier(next, grace_ends);
    }
    return probed && (lying || outer) ? earlier(next, probe_at) : next;
}

/* Withdraws and offers as was decided, and lets the first in the queue start if what it needs has come
 * together. Returns whether somebody did: he has been offered nothing yet. */
static bool carry_out(const struct round *round) {
    jobserver_broker *broker = round->broker;
    for (jobserver_lease *lease = broker->started; lease != NULL; lease = lease->next) {
        withdraw_surplus(round, lease);
    }
    for (jobserver_lease *lease = broker->started; lease != NULL; lease = lease->next) {
        if (takes_part(lease)) {
            offer_missing(round, lease);
        }
    }
    bool any_started = false;
    jobserver_lease *first = first_in_queue(broker);
    while (first != NULL && needed_to_start(first) <= broker->limit - broker->out) {
        jobserver_lease_let_start(first, round->now);
        jobserver_lease_offer(first, needed_to_start(first) - 1);
        any_started = true;
        first = first_in_queue(broker);
    }
    return any_started;
}

/* Sets aside what the queue needs to start, in its order. Returns whether somebody must go on waiting. */
static bool reserve(struct round *round) {
    int64_t after = 0;
    for (;;) {
        const jobserver_lease *next = NULL;
        for (const jobserver_lease *lease = round->broker->waiting; lease != NULL; lease = lease->next) {
            bool later = lease->state == JOBSERVER_LEASE_QUEUED && lease->ticket > after;
            next = later && (next == NULL || lease->ticket < next->ticket) ? lease : next;
        }
        if (next == NULL) {
            return false;
        }
        if (round->left < needed_to_start(next)) {
            round->left = 0;
            return true;
        }
        round->left -= needed_to_start(next);
        after = next->ticket;
    }
}

/* Once the hungry have theirs: what the source of the slots is needed for. */
static void note_demand(struct round *round) {
    int count;
    round->demand.moving = (round->any_hungry && !round->gated) || round->queue_waits;
    round->demand.wanting = round->queue_waits || (!round->gated && first_of(round, OF_THE_HUNGRY, &count) != NULL);
    const jobserver_lease *queued = first_in_queue(round->broker);
    round->demand.leases = round->broker->started != NULL || queued != NULL;
    round->demand.room = queued == NULL ? 0 : room_of(queued);
    round->demand.spare = (round->left > 0 ? round->left : 0) + round->broker->held_back;
    for (const jobserver_lease *lease = round->broker->started; lease != NULL; lease = lease->next) {
        int room = takes_part(lease) && lease->hungry && !round->gated ? room_of(lease) + lease->wanted : 0;
        round->demand.room += room < MOST_ROOM - round->demand.room ? room : MOST_ROOM - round->demand.room;
    }
}

/* Decides once who is to have what. */
static void decide(struct round *round) {
    for (jobserver_lease *lease = round->broker->started; lease != NULL; lease = lease->next) {
        lease->wanted = 0;
        jobserver_hunger_judge(lease, round->now);
        round->left -= jobserver_lease_slots(lease);
        round->any_hungry |= takes_part(lease) && lease->hungry;
        round->probe_is_out |= lease->probing;
    }
    int used = round->broker->limit - round->left;
    round->demand.unused = round->left > 0 ? round->left : 0;
    used += set_aside(round);
    round->most = round->broker->allowed > used ? round->broker->allowed - used : 0;
    keep_fresh(round);
    round->queue_waits = reserve(round);
    pass_gates(round);
    deal(round, OF_THE_HUNGRY);
    note_demand(round);
    deal(round, OF_THOSE_WITH_ONE);
    deal(round, OF_THE_EMPTY);
    deal(round, OF_SURPLUS);
}

int64_t jobserver_share(jobserver_broker *broker, int64_t now) {
    struct round round;
    do {
        round = (struct round){.broker = broker, .now = now, .left = broker->limit};
        decide(&round);
    } while (carry_out(&round));
    if (broker->source != NULL) {
        jobserver_source_need(broker->source, &round.demand);
    }
    return next_time(&round);
}

/*
 * What those who are not hungry are offered goes first. No more than what is known to lie at a lease: bytes that it gave
 * back since then may be more than it took.
 */
int jobserver_share_reclaim(jobserver_broker *broker, int most, int64_t now) {
    for (int hungry = 0; hungry <= 1; hungry++) {
        for (jobserver_lease *lease = broker->started; lease != NULL; lease = lease->next) {
            int missing = most - (broker->limit - broker->out);
            if (lease->hungry == (hungry != 0) && missing > 0 && lease->untaken > 0) {
                jobserver_lease_withdraw(lease, missing < lease->untaken ? missing : lease->untaken);
                jobserver_hunger_withdrawn(lease, false, now);
            }
        }
    }
    int free = broker->limit - broker->out;
    int taken = free < 0 ? 0 : free < most ? free : most;
    broker->limit -= taken;
    return taken;
}
