/* A client: its life, and who is using it. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"

static const char home; /* its address tells this copy of the core from others */

bool jobserver_client_is_ours(const jobserver_client *client) {
    return client->home == &home;
}

/* Wraps a channel, which it owns from here on even when it fails, in a client for the caller. */
static int client_new(jobserver_channel *channel, bool made_here, jobserver_client **out) {
    jobserver_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        jobserver_channel_close(channel, made_here);
        return -ENOMEM;
    }
    client->home = &home;
    client->channel = channel;
    client->pool = jobserver_channel_pool(channel);
    client->made_here = made_here;
    client->references = 1;
    jobserver_process_add(client);
    *out = client;
    return 0;
}

/* The common end of all ways to open or create: `result` is the channel's. */
static int client_from(int result, jobserver_channel *channel, bool made_here, jobserver_client **out) {
    *out = NULL;
    return result < 0 ? result : client_new(channel, made_here, out);
}

/* Makes an anonymous pipe with `limit` tokens. JOBSERVER_LIMIT if no pipe can hold so many. */
int jobserver_client_create_pipe(int limit, jobserver_client **client) {
    jobserver_channel *channel = NULL;
    int result = limit < 0 ? -EINVAL : jobserver_channel_create_pipe(limit, &channel);
    return client_from(result, channel, true, client);
}

/* Makes a fifo at `path`, which must not exist. It is removed when the descriptors are closed. */
int jobserver_client_create_fifo(const char *path, int limit, jobserver_client **client) {
    jobserver_channel *channel = NULL;
    int result = limit < 0 ? -EINVAL : jobserver_channel_create_fifo(path, limit, &channel);
    return client_from(result, channel, true, client);
}

/*
 * Makes a fifo in a new directory of its own (mode 0700) below `directory`, where it also clears away those of dead
 * owners.
 */
int jobserver_client_create_private_fifo(const char *directory, int limit, jobserver_client **client) {
    jobserver_channel *channel = NULL;
    int result = limit < 0 ? -EINVAL : jobserver_channel_create_private_fifo(directory, limit, &channel);
    return client_from(result, channel, true, client);
}

/* Windows: makes a semaphore with a name that cannot be guessed, for this user in this session. */
int jobserver_client_create_semaphore(int limit, jobserver_client **client) {
    jobserver_channel *channel = NULL;
    int result = limit < 0 ? -EINVAL : jobserver_channel_create_semaphore(limit, &channel);
    return client_from(result, channel, true, client);
}

/* Joins the pool behind two descriptors, which stay the caller's and must stay open. */
int jobserver_client_open_descriptors(int read_fd, int write_fd, jobserver_client **client) {
    jobserver_channel *channel = NULL;
    int result = jobserver_channel_open_descriptors(read_fd, write_fd, &channel);
    return client_from(result, channel, false, client);
}

/* Joins the pool behind a fifo or a character device. */
int jobserver_client_open_path(const char *path, jobserver_client **client) {
    jobserver_channel *channel = NULL;
    int result = jobserver_channel_open_path(path, &channel);
    return client_from(result, channel, false, client);
}

/* Windows: joins the pool that is the semaphore of this name (UTF-8). */
int jobserver_client_open_semaphore(const char *name, jobserver_client **client) {
    jobserver_channel *channel = NULL;
    int result = jobserver_channel_open_semaphore(name, &channel);
    return client_from(result, channel, false, client);
}

/* Closes the channel of a client that nobody can use any more. Only the process that made a fifo removes it. */
JOBSERVER_APART static void close_channel(jobserver_client *client) {
    jobserver_channel *channel = client->channel;
    client->channel = NULL;
    if (channel != NULL) {
        jobserver_channel_close(channel, client->generation == jobserver_generation());
    }
}

int jobserver_client_begin(jobserver_client *client) {
    if (!jobserver_client_is_ours(client)) {
        return JOBSERVER_FOREIGN;
    }
    if (atomic_load_explicit(&client->owed, memory_order_relaxed) != 0) {
        jobserver_client_pay(client);
    }
    if (atomic_load_explicit(&client->stranded, memory_order_relaxed) != 0) {
        return JOBSERVER_STRANDED;
    }
    return jobserver_client_enter(client);
}

int jobserver_client_enter(jobserver_client *client) {
    if (!jobserver_client_is_ours(client)) {
        return JOBSERVER_FOREIGN;
    }
    uint64_t uses = atomic_load_explicit(&client->uses, memory_order_relaxed);
    do {
        if (uses & JOBSERVER_USE_CLOSED) {
            return JOBSERVER_CLOSED;
        }
    } while (!atomic_compare_exchange_weak(&client->uses, &uses, uses + JOBSERVER_USE_WAITING));
    return 0;
}

void jobserver_client_keep(jobserver_client *client) {
    atomic_fetch_add(&client->uses, JOBSERVER_USE_HELD - JOBSERVER_USE_WAITING);
}

void jobserver_client_leave(jobserver_client *client) {
    atomic_fetch_sub(&client->uses, JOBSERVER_USE_WAITING);
}

void jobserver_client_hold(jobserver_client *client) {
    atomic_fetch_add(&client->uses, JOBSERVER_USE_HELD);
}

void jobserver_client_drop(jobserver_client *client) {
    if (atomic_fetch_sub(&client->uses, JOBSERVER_USE_HELD) == (JOBSERVER_USE_CLOSED | JOBSERVER_USE_HELD)) {
        close_channel(client);
    }
}

bool jobserver_client_pin(jobserver_client *client) {
    uint64_t uses = atomic_load(&client->uses);
    do {
        if (uses == JOBSERVER_USE_CLOSED) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&client->uses, &uses, uses + JOBSERVER_USE_HELD));
    return true;
}

/*
 * Refuses all further use. Tokens that are out may still be released: the descriptors are closed with the last of
 * them. -EBUSY, with nothing changed, while another thread waits in the client. Closing again is harmless.
 */
int jobserver_client_close(jobserver_client *client) {
    if (!jobserver_client_is_ours(client)) {
        return JOBSERVER_FOREIGN;
    }
    uint64_t uses = atomic_load(&client->uses);
    do {
        if (uses & JOBSERVER_USE_CLOSED) {
            return 0;
        }
        if (uses >= JOBSERVER_USE_WAITING) {
            return -EBUSY;
        }
    } while (!atomic_compare_exchange_weak(&client->uses, &uses, uses | JOBSERVER_USE_CLOSED));
    if (uses == 0) {
        close_channel(client);
    }
    return 0;
}

void jobserver_client_unreference(jobserver_client *client) {
    if (atomic_fetch_sub(&client->references, 1) == 1) {
        jobserver_process_remove(client);
        close_channel(client);
        free(client);
    }
}

/* Gives up the caller's client. Tokens, batches and holds that are out keep it alive. */
void jobserver_client_free(jobserver_client *client) {
    jobserver_client_unreference(client);
}

/* How many tokens are free now, without taking one. JOBSERVER_UNSUPPORTED for a device that cannot say. */
int jobserver_client_available(jobserver_client *client) {
    int result = jobserver_client_begin(client);
    if (result < 0) {
        return result;
    }
    result = jobserver_channel_available(client->channel);
    jobserver_client_leave(client);
    return result;
}

/* The two numbers that children inherit, or -1 and -1 if the pool is found by its path or name. */
int jobserver_client_descriptors(jobserver_client *client, int descriptors[2]) {
    int result = jobserver_client_enter(client);
    if (result < 0) {
        return result;
    }
    jobserver_channel_descriptors(client->channel, descriptors);
    jobserver_client_leave(client);
    return 0;
}

/* Copies the pool's path or name, empty if it has none. -ENAMETOOLONG if it does not fit into `size` bytes. */
int jobserver_client_path(jobserver_client *client, char *path, size_t size) {
    int result = jobserver_client_enter(client);
    if (result < 0) {
        return result;
    }
    const char *own = jobserver_channel_path(client->channel);
    size_t length = own == NULL ? 0 : strlen(own);
    if (length >= size) {
        result = -ENAMETOOLONG;
    } else {
        memcpy(path, own == NULL ? "" : own, length + 1);
    }
    jobserver_client_leave(client);
    return result;
}

/* 0 if the descriptor can be an end of a pool; -EBADF, JOBSERVER_NOT_A_PIPE or JOBSERVER_WRONG_DIRECTION. */
int jobserver_check_descriptor(int descriptor, int for_writing) {
    return jobserver_channel_check(descriptor, for_writing != 0);
}
