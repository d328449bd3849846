/* A cell with one token, or with the implicit slot. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

/*
 * The state is a serial number and a phase in one word. Only the exchange HELD -> RETURNING of the right serial gives
 * the token back, so a second release, or one that comes when the cell holds another token, changes nothing.
 */
enum phase { PHASE_FREE, PHASE_HELD, PHASE_RETURNING, PHASE_MASK };

struct jobserver_token {
    struct jobserver_entry entry; /* first: entries are freed through it */
    _Atomic uint64_t state;
    atomic_uint generation; /* of the process that took */
    unsigned char byte;
    bool implicit;
};

/* A free cell of the caller, who gives it up with jobserver_token_free. Null when memory is short or the client is foreign. */
jobserver_token *jobserver_token_new(jobserver_client *client) {
    jobserver_token *token = !jobserver_client_is_ours(client) ? NULL : calloc(1, sizeof *token);
    if (token != NULL) {
        jobserver_entry_add(client, &token->entry, JOBSERVER_ENTRY_TOKEN);
    }
    return token;
}

/*
 * Says that the cell now holds what was just taken. Returns the serial of this taking. A release store is enough, and
 * much cheaper: exit() looks only at cells of those who, after this, changed the client's uses.
 */
static int64_t set_held(jobserver_token *token, bool implicit) {
    uint64_t serial = (atomic_load_explicit(&token->state, memory_order_relaxed) >> 2) + 1;
    token->implicit = implicit;
    atomic_store_explicit(&token->generation, jobserver_generation(), memory_order_relaxed);
    atomic_store_explicit(&token->state, serial << 2 | PHASE_HELD, memory_order_release);
    return (int64_t)serial;
}

/*
 * Takes a token into a free cell. `timeout` in nanoseconds: negative for none, 0 tries once.
 * Returns a serial (positive); -EAGAIN or -ETIMEDOUT, -EINTR (nothing was taken, call again), or another error.
 */
JOBSERVER_FLAT int64_t jobserver_token_acquire(jobserver_token *token, int64_t timeout) {
    return jobserver_token_acquire_or(token, timeout, NULL, 0);
}

int64_t jobserver_token_acquire_or(jobserver_token *token, int64_t timeout, const intptr_t *others, int count) {
    jobserver_client *client = token->entry.client;
    int result = jobserver_client_begin(client);
    if (result < 0) {
        return result;
    }
    struct jobserver_until until = {.deadline = jobserver_deadline(timeout), .others = others, .count = count};
    result = jobserver_take(client, &token->byte, 1, &until);
    if (result < 0) {
        jobserver_client_leave(client);
        return result;
    }
    /* In this order: exit() looks for held cells when nobody is awake inside any more. */
    int64_t serial = set_held(token, false);
    jobserver_client_keep(client);
    return serial;
}

/* Takes the process's implicit slot into a free cell. Returns a serial, or -EAGAIN if it is not free. */
int64_t jobserver_token_acquire_implicit(jobserver_token *token) {
    jobserver_client *client = token->entry.client;
    int result = jobserver_client_begin(client);
    if (result < 0) {
        return result;
    }
    jobserver_client_leave(client);
    return client->inherited && jobserver_implicit_take() ? set_held(token, true) : -EAGAIN;
}

/*
 * Claims what the cell holds under this serial (0: under any) for the caller alone. Returns the serial, or 0: somebody
 * else did, or a fork took it away.
 */
static uint64_t claim(jobserver_token *token, int64_t serial) {
    uint64_t number = serial != 0 ? (uint64_t)serial : atomic_load_explicit(&token->state, memory_order_relaxed) >> 2;
    uint64_t expected = number << 2 | PHASE_HELD;
    bool claimed = atomic_load_explicit(&token->generation, memory_order_relaxed) == jobserver_generation() &&
                   atomic_compare_exchange_strong(&token->state, &expected, number << 2 | PHASE_RETURNING);
    return claimed ? number : 0;
}

/*
 * Gives back what was taken under `serial`. Returns 0, or 1 if that was done before (or belongs to the parent of this
 * process). On an error the token stays held.
 */
JOBSERVER_FLAT int jobserver_token_release(jobserver_token *token, int64_t serial) {
    jobserver_client *client = token->entry.client;
    uint64_t number = claim(token, serial);
    if (number == 0) {
        return 1;
    }
    bool implicit = token->implicit;
    if (!implicit) {
        int result = jobserver_channel_give(client->channel, &token->byte, 1);
        if (result < 0) {
            atomic_store(&token->state, number << 2 | PHASE_HELD);
            return result;
        }
    }
    atomic_store_explicit(&token->state, number << 2 | PHASE_FREE, memory_order_release);
    if (implicit) {
        jobserver_implicit_give_back();
    } else {
        jobserver_client_drop(client);
    }
    return 0;
}

/* In a forked child a cell may say for ever what a thread of the parent did when it forked. */
bool jobserver_token_is_returning(const jobserver_token *token) {
    return atomic_load_explicit(&token->generation, memory_order_relaxed) == jobserver_generation() &&
           (atomic_load(&token->state) & PHASE_MASK) == PHASE_RETURNING;
}

/* Gives back whatever the cell holds. 0 if it holds nothing now. */
int jobserver_token_give_back(jobserver_token *token) {
    int result = jobserver_token_release(token, 0);
    return result < 0 ? result : 0;
}

/*
 * Frees the cell, and gives back first what it holds. If that fails the client keeps the cell and tells the error to
 * its next caller.
 */
void jobserver_token_free(jobserver_token *token) {
    int result = jobserver_token_give_back(token);
    if (result < 0) {
        jobserver_entry_strand(&token->entry, result);
        return;
    }
    jobserver_entry_remove(&token->entry);
    free(token);
}

/* Without memory it becomes a raw token, which only jobserver_release_raw gives back. */
void jobserver_token_strand(jobserver_client *client, unsigned char byte, int error) {
    jobserver_token *token = jobserver_token_new(client);
    jobserver_client_hold(client);
    if (token == NULL) {
        jobserver_raw_add(client, byte);
        atomic_store(&client->stranded, error);
        return;
    }
    token->byte = byte;
    set_held(token, false);
    jobserver_entry_strand(&token->entry, error);
}

/*
 * Turns what was taken under `serial` into a raw token of this process: it is out until jobserver_release_raw.
 * Returns its byte, -ENOENT if the cell does not hold it any more, or -EINVAL for the implicit slot, which has none.
 */
int jobserver_token_drop(jobserver_token *token, int64_t serial) {
    uint64_t number = claim(token, serial);
    if (number == 0) {
        return -ENOENT;
    }
    if (token->implicit) {
        atomic_store(&token->state, number << 2 | PHASE_HELD);
        return -EINVAL;
    }
    int byte = token->byte;
    jobserver_raw_add(token->entry.client, token->byte);
    atomic_store(&token->state, number << 2 | PHASE_FREE);
    return byte;
}

/* The byte of the token that the cell holds; -ENOENT if it holds none, -EINVAL for the implicit slot, which has none. */
int jobserver_token_byte(jobserver_token *token) {
    bool held = atomic_load_explicit(&token->generation, memory_order_relaxed) == jobserver_generation() &&
                (atomic_load(&token->state) & PHASE_MASK) == PHASE_HELD;
    return !held ? -ENOENT : token->implicit ? -EINVAL : token->byte;
}

JOBSERVER_FLAT int jobserver_token_take(jobserver_token *token) {
    int64_t result = jobserver_token_acquire(token, -1);
    return result < 0 ? (int)result : 0;
}

JOBSERVER_FLAT int jobserver_token_give(jobserver_token *token) {
    return jobserver_token_release(token, 0);
}
