/*
 * The implicit slot: a process that was started under a jobserver runs one job without a token (GNU make manual,
 * "POSIX Jobserver Interaction"). There is one for each process, whatever the number of its clients, and none in a
 * process that made its pool or that was forked.
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"
#include "process.h"

enum slot { SLOT_NONE, SLOT_FREE, SLOT_TAKEN, SLOT_LENT };

static atomic_int slot;

/* An event that is set whenever the slot becomes free. */
struct watch {
    jobserver_event *event;
    struct watch *next;
};

static struct watch *watches; /* under jobserver_lock */

/* Changes the slot's state if it is what the caller thinks. */
static bool change(int from, int to) {
    return atomic_compare_exchange_strong(&slot, &from, to);
}

/* From now on this process owns a slot, if it did not yet. */
void jobserver_implicit_inherit(void) {
    change(SLOT_NONE, SLOT_FREE);
}

/* Whether the slot was free and is now the caller's. */
bool jobserver_implicit_take(void) {
    return change(SLOT_FREE, SLOT_TAKEN);
}

/* Nobody is told in a process that exits: exit() holds the lock, and nobody may take the slot any more. */
JOBSERVER_APART void jobserver_implicit_give_back(void) {
    change(SLOT_TAKEN, SLOT_FREE);
    if (jobserver_process_exiting()) {
        return;
    }
    jobserver_lock();
    for (struct watch *watch = watches; watch != NULL; watch = watch->next) {
        jobserver_event_set(watch->event);
    }
    jobserver_unlock();
}

/* Whether this process owns a slot that is free, or will be. */
int jobserver_implicit_owned(void) {
    int now = atomic_load(&slot);
    return now == SLOT_FREE || now == SLOT_TAKEN;
}

/* Sets the event, until it is freed, each time the slot becomes free. 0 or -ENOMEM. */
int jobserver_implicit_watch(jobserver_event *event) {
    struct watch *watch = malloc(sizeof *watch);
    if (watch == NULL) {
        return -ENOMEM;
    }
    watch->event = event;
    jobserver_lock();
    watch->next = watches;
    watches = watch;
    jobserver_unlock();
    return 0;
}

void jobserver_implicit_unwatch(const jobserver_event *event) {
    jobserver_lock();
    for (struct watch **link = &watches; *link != NULL;) {
        struct watch *watch = *link;
        if (watch->event == event) {
            *link = watch->next;
            free(watch);
        } else {
            link = &watch->next;
        }
    }
    jobserver_unlock();
}

/* Whether the slot was free and may be put into the pool as a token. It never becomes free again. */
bool jobserver_implicit_lend(void) {
    return change(SLOT_FREE, SLOT_LENT);
}

/* Undoes jobserver_implicit_lend when the token did not go into the pool. */
void jobserver_implicit_unlend(void) {
    change(SLOT_LENT, SLOT_FREE);
}

/* A forked child has no slot: its parent keeps it. */
void jobserver_implicit_forked(void) {
    atomic_store(&slot, SLOT_NONE);
}
