/*
 * The journal of a broker: each change of the slots in use and of their limit, with its time. It is a ring of a fixed
 * size, which somebody empties now and then; nothing is allocated where tokens move. What comes while it is full is
 * counted and left out, and the next change that finds room says how things are then.
 */
#include "broker.h"

#include <errno.h>
#include <stdlib.h>

struct jobserver_journal {
    size_t size;
    size_t first; /* the oldest that has not been taken */
    size_t count;
    int64_t dropped;
    struct jobserver_noted limit;
    jobserver_change changes[];
};

/* Writes a number if it is not the one that was written last. If there is no room a change is counted once. */
static void write_change(struct jobserver_journal *journal, struct jobserver_noted *noted, int64_t now, int lease,
                         int number) {
    if (number != noted->written && journal->count < journal->size) {
        journal->changes[(journal->first + journal->count++) % journal->size] =
            (jobserver_change){.time = now, .lease = lease, .slots = number};
        noted->written = number;
    } else {
        journal->dropped += number != noted->seen && number != noted->written;
    }
    noted->seen = number;
}

void jobserver_journal_slots(jobserver_lease *lease, int64_t now) {
    write_change(lease->broker->journal, &lease->noted, now, lease->number, jobserver_lease_slots(lease));
}

void jobserver_journal_limit(jobserver_broker *broker, int64_t now) {
    write_change(broker->journal, &broker->journal->limit, now, 0, broker->limit);
}

/*
 * Begins to keep a journal with room for so many changes, of all that the broker does from now on. Its first entries say
 * how things are. 0; -EBUSY if it is kept already, -EINVAL, -ENOMEM or JOBSERVER_CLOSED.
 */
int jobserver_broker_record(jobserver_broker *broker, int room) {
    if (room < 1) {
        return -EINVAL;
    }
    struct jobserver_journal *journal = calloc(1, sizeof *journal + (size_t)room * sizeof journal->changes[0]);
    if (journal == NULL) {
        return -ENOMEM;
    }
    journal->size = (size_t)room;
    journal->limit = (struct jobserver_noted){.seen = -1, .written = -1};
    jobserver_lock();
    int result = !jobserver_broker_is_open(broker) ? JOBSERVER_CLOSED : broker->journal != NULL ? -EBUSY : 0;
    if (result == 0) {
        int64_t now = jobserver_now();
        broker->journal = journal;
        jobserver_journal_limit(broker, now);
        for (jobserver_lease *lease = broker->started; lease != NULL; lease = lease->next) {
            jobserver_journal_slots(lease, now);
        }
    }
    jobserver_unlock();
    if (result < 0) {
        free(journal);
    }
    return result;
}

/*
 * Takes up to `most` changes, the oldest first, and says in *dropped how many there was no room for so far. Returns how
 * many it took, or JOBSERVER_CLOSED if there is no journal. Also after the broker was stopped.
 */
int jobserver_broker_changes(jobserver_broker *broker, jobserver_change *changes, int most, int64_t *dropped) {
    if (!jobserver_broker_is_ours(broker)) {
        return JOBSERVER_CLOSED;
    }
    jobserver_lock();
    struct jobserver_journal *journal = broker->journal;
    int count = journal == NULL ? JOBSERVER_CLOSED : 0;
    while (journal != NULL && count < most && journal->count > 0) {
        changes[count++] = journal->changes[journal->first];
        journal->first = (journal->first + 1) % journal->size;
        journal->count--;
    }
    *dropped = journal == NULL ? 0 : journal->dropped;
    jobserver_unlock();
    return count;
}

void jobserver_journal_free(struct jobserver_journal *journal) {
    free(journal);
}

/* The number by which the journal names a lease: its broker's leases are counted from 1 on. */
int jobserver_lease_number(jobserver_lease *lease) {
    return lease->number;
}
