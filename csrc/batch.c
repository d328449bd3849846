/* Many tokens taken at once, and given back at once. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum phase { PHASE_FREE, PHASE_HELD, PHASE_RETURNING };

struct jobserver_batch {
    struct jobserver_entry entry; /* first: entries are freed through it */
    atomic_int phase;
    bool locked;
    jobserver_pool_lock *lock; /* while this batch waits with tokens in its hands, or for the lock; else null */
    size_t count;
    size_t maximum;
    unsigned char bytes[];
};

/* An empty batch for 1 to `maximum` tokens, the caller's until jobserver_batch_free. Null when memory is short or the client is foreign. */
jobserver_batch *jobserver_batch_new(jobserver_client *client, int maximum) {
    jobserver_batch *batch =
        maximum < 1 || !jobserver_client_is_ours(client) ? NULL : calloc(1, sizeof *batch + (size_t)maximum);
    if (batch != NULL) {
        batch->maximum = (size_t)maximum;
        jobserver_entry_add(client, &batch->entry, JOBSERVER_ENTRY_BATCH);
    }
    return batch;
}

static void unlock(jobserver_batch *batch) {
    if (batch->lock != NULL) {
        jobserver_pool_lock_close(batch->lock);
        batch->lock = NULL;
        batch->locked = false;
    }
}

/* Gives back all that the batch holds. On an error the rest stays in it. */
static int give_all(jobserver_batch *batch) {
    while (batch->count > 0) {
        unsigned char *bytes = batch->bytes;
        int result = jobserver_channel_give(batch->entry.client->channel, bytes, batch->count);
        if (result < 0) {
            return result;
        }
        batch->count -= (size_t)result;
        memmove(bytes, bytes + result, batch->count);
    }
    return 0;
}

/* Gives back all, unless another thread does, or it was done, or it is the parent's: then 1. */
static int give_back_once(jobserver_batch *batch) {
    int expected = PHASE_HELD;
    if (!atomic_compare_exchange_strong(&batch->phase, &expected, PHASE_RETURNING)) {
        return 1;
    }
    int result = give_all(batch);
    if (result < 0) {
        atomic_store(&batch->phase, PHASE_HELD);
        return result;
    }
    atomic_store(&batch->phase, PHASE_FREE);
    jobserver_client_drop(batch->entry.client);
    return 0;
}

bool jobserver_batch_is_returning(const jobserver_batch *batch) {
    return atomic_load(&batch->phase) == PHASE_RETURNING;
}

int jobserver_batch_give_back(jobserver_batch *batch) {
    int result = give_back_once(batch);
    return result < 0 ? result : 0;
}

/* In a forked child the lock is the parent's, as the tokens are. */
void jobserver_batch_forked(jobserver_batch *batch) {
    batch->lock = NULL;
    batch->locked = false;
    batch->count = 0;
    atomic_store(&batch->phase, PHASE_FREE);
}

/* Takes up to the maximum, before the deadline. 0, or why it took none. From here on the batch gives them back. */
static int take_more(jobserver_batch *batch, const struct jobserver_until *until) {
    jobserver_client *client = batch->entry.client;
    int result = jobserver_take(client, batch->bytes + batch->count, batch->maximum - batch->count, until);
    if (result < 0) {
        return result;
    }
    batch->count += (size_t)result;
    if (atomic_load(&batch->phase) == PHASE_FREE) {
        jobserver_client_hold(client);
    }
    atomic_store(&batch->phase, PHASE_HELD);
    return 0;
}

/* Opened with the process's lock held: a forked child closes its copy. */
static int open_lock(jobserver_batch *batch) {
    jobserver_lock();
    int result = jobserver_pool_lock_open(batch->entry.client->channel, &batch->lock);
    jobserver_unlock();
    return result;
}

/*
 * Locks the pool for a batch that may have to wait with tokens in its hands: two of those could wait for each other
 * for ever. With no time to wait it first looks whether there is enough, so as to disturb nobody in vain.
 */
static int lock(jobserver_batch *batch, size_t minimum, const struct jobserver_until *until) {
    jobserver_client *client = batch->entry.client;
    if (until->deadline == 0) {
        int available = jobserver_channel_available(client->channel);
        if (available < 0 || (size_t)available < minimum) {
            return available < 0 ? available : -EAGAIN;
        }
    }
    int result = batch->lock == NULL ? open_lock(batch) : 0;
    if (result == 0) {
        result = jobserver_wait_for_lock(client, batch->lock, until);
        batch->locked = result == 0;
    }
    return result;
}

/* Takes until the batch holds the minimum. */
static int fill(jobserver_batch *batch, size_t minimum, const struct jobserver_until *until) {
    int result = minimum > 1 && !batch->locked ? lock(batch, minimum, until) : 0;
    while (result == 0 && batch->count < minimum) {
        result = take_more(batch, until);
    }
    return result;
}

/* Leaves the batch without tokens, since taking failed with `error`. Returns that, or why it cannot. */
static int give_up(jobserver_batch *batch, int error) {
    unlock(batch);
    int result = jobserver_batch_give_back(batch);
    return result < 0 ? result : error;
}

/*
 * Takes from `minimum` (at least 1) to the batch's maximum tokens into an empty batch. Returns how many it holds.
 * After -EINTR and JOBSERVER_STRANDED it may hold some already: call again to go on, or free it. After any other error
 * it holds none, except when they could not be given back (then that is the error).
 */
int jobserver_batch_acquire(jobserver_batch *batch, int minimum, int64_t timeout) {
    return jobserver_batch_acquire_or(batch, minimum, timeout, NULL, 0);
}

/*
 * The same, but something else may end the wait: JOBSERVER_READY, after which it may hold some already, as after
 * -EINTR. Waiting with tokens in its hands it keeps others from it: so go on soon, or release the batch.
 */
int jobserver_batch_acquire_or(jobserver_batch *batch, int minimum, int64_t timeout, const intptr_t *others,
                               int count) {
    jobserver_client *client = batch->entry.client;
    int result = minimum < 1 || (size_t)minimum > batch->maximum ? -EINVAL : jobserver_client_begin(client);
    if (result < 0) {
        return result == JOBSERVER_STRANDED ? result : give_up(batch, result);
    }
    struct jobserver_until until = {.deadline = jobserver_deadline(timeout), .others = others, .count = count};
    result = fill(batch, (size_t)minimum, &until);
    if (result == 0) {
        unlock(batch);
    } else if (result != -EINTR && result != JOBSERVER_READY) {
        result = give_up(batch, result);
    }
    jobserver_client_leave(client);
    return result < 0 ? result : (int)batch->count;
}

/*
 * Gives back all that the batch holds, also what an interrupted jobserver_batch_acquire left in it. Returns 0, or 1 if
 * there was nothing (released before, or by another thread at this moment, or it belongs to the parent of this
 * process). On an error the rest stays held.
 */
int jobserver_batch_release(jobserver_batch *batch) {
    unlock(batch);
    return give_back_once(batch);
}

/* Frees the batch, and gives back first what it holds; if that fails the client keeps it and tells its next caller. */
void jobserver_batch_free(jobserver_batch *batch) {
    unlock(batch);
    int result = jobserver_batch_give_back(batch);
    if (result < 0) {
        jobserver_entry_strand(&batch->entry, result);
        return;
    }
    jobserver_entry_remove(&batch->entry);
    free(batch);
}
