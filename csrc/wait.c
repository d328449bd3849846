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
 * One write of many tokens wakes one waiter, and only a write wakes the next: so one token goes out and in again. In a
 * pool that is nearly full it might not go in again (a page that is partly read cannot be refilled), so such a pool is
 * left alone. Should others fill the pool in between, the caller is left with the token.
 */
int jobserver_pass_wake_up_on(jobserver_channel *channel, unsigned char *byte) {
    int left = jobserver_channel_available(channel);
    if (left <= 0 || (size_t)left >= jobserver_channel_capacity(channel) ||
        jobserver_channel_take(channel, byte, 1) != 1) {
        return 0;
    }
    int result = jobserver_channel_give(channel, byte, 1);
    return result < 0 ? result : 0;
}

/*
 * exit() waits for everybody inside who is not asleep before it gives back what they hold. So whoever wakes up looks
 * whether the process exits before taking anything.
 */
static void fall_asleep(jobserver_client *client) {
    atomic_fetch_add(&client->asleep, 1);
}

static void wake_up(jobserver_client *client) {
    atomic_fetch_sub(&client->asleep, 1);
}

JOBSERVER_APART static int wait_for_token(jobserver_client *client, const struct jobserver_until *until) {
    fall_asleep(client);
    int result = jobserver_channel_wait(client->channel, until);
    wake_up(client);
    return result;
}

int jobserver_wait_for_lock(jobserver_client *client, jobserver_pool_lock *lock, const struct jobserver_until *until) {
    if (jobserver_process_exiting()) {
        return -ECANCELED;
    }
    fall_asleep(client);
    int result = jobserver_pool_lock_wait(lock, until);
    wake_up(client);
    return result;
}

/* Puts back what was just taken, as far as it goes in. */
static void put_back(jobserver_channel *channel, const unsigned char *bytes, int count) {
    int given = 0;
    while (count > 0 && given >= 0) {
        given = jobserver_channel_give(channel, bytes, (size_t)count);
        bytes += given;
        count -= given;
    }
}

/*
 * Here the token is taken asleep, and nothing but a token wakes a thread that is in here when the process exits: so
 * it puts it back, and exit() gives it a moment for that.
 */
JOBSERVER_APART static int take_asleep(jobserver_client *client, unsigned char *bytes, size_t size) {
    atomic_fetch_add(&client->taking_asleep, 1);
    fall_asleep(client);
    int result = jobserver_channel_take_sleeping(client->channel, bytes, size);
    wake_up(client);
    if (result > 0 && jobserver_process_exiting()) {
        put_back(client->channel, bytes, result);
        result = -ECANCELED;
    }
    atomic_fetch_sub(&client->taking_asleep, 1);
    return result;
}

/* Takes what is there without waiting, if the system can do that; else it waits if the caller waits for nothing else. */
static int take_now(jobserver_client *client, unsigned char *bytes, size_t size, const struct jobserver_until *until) {
    if (jobserver_process_exiting()) {
        return -ECANCELED;
    }
    int result = jobserver_channel_take(client->channel, bytes, size);
    bool may_sleep = until->deadline < 0 && until->count == 0;
    return result == JOBSERVER_UNSUPPORTED && may_sleep ? take_asleep(client, bytes, size) : result;
}

/* A token that does not go in again is stranded: the client's next call tells. */
JOBSERVER_APART static void pass_wake_up_on(jobserver_client *client) {
    unsigned char byte;
    int result = jobserver_pass_wake_up_on(client->channel, &byte);
    if (result < 0) {
        jobserver_token_strand(client, byte, result);
    }
}

/*
 * Takes one token and passes the wake-up on with one system call less, which whoever waits for the token would feel:
 * it takes two, and gives the second, if there is one, back.
 */
static int take_one_of_two(jobserver_client *client, unsigned char *byte, const struct jobserver_until *until) {
    unsigned char bytes[2];
    int result = take_now(client, bytes, 2, until);
    if (result < 1) {
        return result;
    }
    *byte = bytes[0];
    int given = result == 2 ? jobserver_channel_give(client->channel, bytes + 1, 1) : 0;
    if (given < 0) {
        jobserver_token_strand(client, bytes[1], given);
    }
    return 1;
}

/* Takes what a waiter was woken for, and sees to it that the wake-up is not lost. In a pool of one page nothing can be. */
JOBSERVER_APART static int take_woken(jobserver_client *client, unsigned char *bytes, size_t size,
                                      const struct jobserver_until *until) {
    if (size == 1 && jobserver_channel_capacity(client->channel) > 1) {
        return take_one_of_two(client, bytes, until);
    }
    int result = take_now(client, bytes, size, until);
    if (result > 0) {
        pass_wake_up_on(client);
    }
    return result;
}

/*
 * Takes 1 to `size` tokens, sleeping until there is one or something else ends the wait. Returns how many,
 * JOBSERVER_READY, -EAGAIN (the deadline was 0), -ETIMEDOUT, -EINTR, -ECANCELED in a process that exits, or another
 * error. A waiter that was woken always looks for its token before it leaves, or its wake-up would be lost to the
 * others; so does one that was woken by something else, since the token may have come just after it.
 */
int jobserver_take(jobserver_client *client, unsigned char *bytes, size_t size, const struct jobserver_until *until) {
    int result = take_now(client, bytes, size, until);
    while (result == -EAGAIN && until->deadline != 0) {
        int woken = wait_for_token(client, until);
        if (woken < 0 && woken != JOBSERVER_READY) {
            return woken;
        }
        result = woken != 0 ? take_woken(client, bytes, size, until) : take_now(client, bytes, size, until);
        if (result == -EAGAIN && woken == JOBSERVER_READY) {
            return woken;
        }
        if (result == -ECANCELED) {
            atomic_store(&client->left_woken, true); /* for exit(), which wakes another in our place */
        }
    }
    return result;
}
