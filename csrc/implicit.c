/*
 * The implicit slot: a process that was started under a jobserver runs one job without a token (GNU make manual,
 * "POSIX Jobserver Interaction"). There is one for each process, whatever the number of its clients, and none in a
 * process that made its pool or that was forked.
 */
#include "internal.h"

enum slot { SLOT_NONE, SLOT_FREE, SLOT_TAKEN, SLOT_LENT };

static atomic_int slot;

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

void jobserver_implicit_give_back(void) {
    change(SLOT_TAKEN, SLOT_FREE);
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
