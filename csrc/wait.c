/* Waiting for tokens, on top of the platform's ways to sleep. */
#include <errno.h>

#include "internal.h"
#include "process.h"

/* When a timeout that starts now ends: negative for never, 0 for at once. */
int64_t jobserver_deadline(int64_t timeout) {
    if (timeout <= 0) {
        return timeout;
    }
    int64_t now = jobserver_now();
    return timeout > INT64_MAX - now ? -1 : now + timeout;
}

/*
 * Wakes the next waiter if there are tokens left. One write of many tokens wakes one waiter, and only a write wakes
 * the next: so one token goes out and in again. In a pool that is nearly full it might not go in again (a page that is
 * partly read cannot be refilled), so such a pool is left alone. Should others fill the pool in between, the token is
 * out as a raw one, and the client's next call tells.
 */
static void pass_wake_up_on(jobserver_client *client) {
    jobserver_channel *channel = client->channel;
    unsigned char byte;
    int left = jobserver_channel_available(channel);
    if (left <= 0 || (size_t)left >= jobserver_channel_capacity(channel) || jobserver_channel_take(channel, &byte, 1) != 1) {
        return;
    }
    int result = jobserver_channel_give(channel, &byte, 1);
    if (result < 0) {
        jobserver_client_hold(client);
        jobserver_raw_add(client, byte);
        atomic_store(&client->stranded, result);
    }
}

/* Gives back what a thread took while the process exits. Returns -ECANCELED. */
static int give_up(jobserver_channel *channel, const unsigned char *bytes, size_t size) {
    while (size > 0) {
        int given = jobserver_channel_give(channel, bytes, size);
        if (given < 0) {
            break;
        }
        bytes += given;
        size -= (size_t)given;
    }
    return -ECANCELED;
}

/*
 * Takes 1 to `size` tokens, sleeping until there is one or the deadline passes. Returns how many, -EAGAIN (the
 * deadline was 0), -ETIMEDOUT, -EINTR, or another error. A waiter that was woken always looks for its token before it
 * leaves, or its wake-up would be lost to the others.
 */
int jobserver_take(jobserver_client *client, unsigned char *bytes, size_t size, int64_t deadline) {
    jobserver_channel *channel = client->channel;
    int result = -EAGAIN;
    int woken = 0;
    if (deadline < 0) {
        result = jobserver_channel_take_sleeping(channel, bytes, size);
    }
    while (result == -EAGAIN) {
        result = jobserver_channel_take(channel, bytes, size);
        if (result != -EAGAIN || deadline == 0) {
            break;
        }
        woken = jobserver_channel_wait(channel, deadline);
        if (woken < 0) {
            return woken;
        }
    }
    if (woken > 0 && result > 0) {
        pass_wake_up_on(client);
    }
    return result > 0 && jobserver_process_exiting() ? give_up(channel, bytes, (size_t)result) : result;
}
