/* Tokens whose byte the caller keeps: only counted here, by client and process. */
#include <errno.h>
#include <limits.h>

#include "internal.h"

void jobserver_raw_add(jobserver_client *client, unsigned char byte) {
    atomic_fetch_add(&client->raw_out[byte], 1);
    atomic_store_explicit(&client->raw_hint, byte, memory_order_relaxed);
}

/* Counts one token with this byte as no longer out. False if there is none. */
static bool take_off(jobserver_client *client, unsigned char byte) {
    unsigned count = atomic_load(&client->raw_out[byte]);
    while (count > 0) {
        if (atomic_compare_exchange_weak(&client->raw_out[byte], &count, count - 1)) {
            return true;
        }
    }
    return false;
}

/* Counts any one token as no longer out. Returns its byte, or JOBSERVER_OVER_RELEASE. */
static int take_off_any(jobserver_client *client) {
    int hint = atomic_load_explicit(&client->raw_hint, memory_order_relaxed);
    if (take_off(client, (unsigned char)hint)) {
        return hint;
    }
    for (int byte = 0; byte < 256; byte++) {
        if (take_off(client, (unsigned char)byte)) {
            return byte;
        }
    }
    return JOBSERVER_OVER_RELEASE;
}

/* Whether any token is out. */
static bool any_out(jobserver_client *client) {
    for (int byte = 0; byte < 256; byte++) {
        if (atomic_load(&client->raw_out[byte]) > 0) {
            return true;
        }
    }
    return false;
}

/*
 * Takes a token and hands its byte to the caller, who gives it back with jobserver_release_raw; exit() does not.
 * Returns the byte, or an error as jobserver_token_acquire does.
 */
int jobserver_acquire_raw(jobserver_client *client, int64_t timeout) {
    unsigned char byte;
    int result = jobserver_client_begin(client);
    if (result < 0) {
        return result;
    }
    struct jobserver_until until = {.deadline = jobserver_deadline(timeout)};
    result = jobserver_take(client, &byte, 1, &until);
    if (result < 0) {
        jobserver_client_leave(client);
        return result;
    }
    jobserver_client_keep(client);
    jobserver_raw_add(client, byte);
    return byte;
}

/* Puts the implicit slot of a process that inherited the pool into it, once. */
static int lend_implicit(jobserver_client *client) {
    unsigned char byte = JOBSERVER_TOKEN_BYTE;
    int result = jobserver_client_enter(client);
    if (result < 0) {
        return result;
    }
    if (!client->inherited || !jobserver_implicit_lend()) {
        result = JOBSERVER_OVER_RELEASE;
    } else {
        result = jobserver_channel_give(client->channel, &byte, 1);
        if (result < 0) {
            jobserver_implicit_unlend();
        }
    }
    jobserver_client_leave(client);
    return result < 0 ? result : 0;
}

/*
 * Gives back a raw token: the one with this byte, or with -1 any that is out; with -1 and none out, a process that
 * inherited the pool lends its implicit slot, once. JOBSERVER_OVER_RELEASE with none out, JOBSERVER_NOT_OUT if others
 * are. A token that could not be given back stays out. Works on a closed client while tokens are out.
 */
int jobserver_release_raw(jobserver_client *client, int byte) {
    if (byte > UCHAR_MAX) {
        return -EINVAL;
    }
    if (byte < 0) {
        byte = take_off_any(client);
        if (byte < 0) {
            return lend_implicit(client);
        }
    } else if (!take_off(client, (unsigned char)byte)) {
        return any_out(client) ? JOBSERVER_NOT_OUT : JOBSERVER_OVER_RELEASE;
    }
    unsigned char given = (unsigned char)byte;
    int result = jobserver_channel_give(client->channel, &given, 1);
    if (result < 0) {
        jobserver_raw_add(client, given);
        return result;
    }
    jobserver_client_drop(client);
    return 0;
}

JOBSERVER_FLAT int jobserver_take_raw(jobserver_client *client) {
    return jobserver_acquire_raw(client, -1);
}

int jobserver_give_raw(jobserver_client *client) {
    return jobserver_release_raw(client, -1);
}

JOBSERVER_FLAT int jobserver_give_raw_plus(jobserver_client *client) {
    return jobserver_release_raw(client, JOBSERVER_TOKEN_BYTE);
}
