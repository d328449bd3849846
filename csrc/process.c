#include "process.h"

#include "internal.h"

#define LONGEST_EXIT 50000000 /* nanoseconds */

static jobserver_client *clients; /* under jobserver_lock */
static atomic_uint generation;
static atomic_bool exiting;

unsigned jobserver_generation(void) {
    return atomic_load_explicit(&generation, memory_order_relaxed);
}

bool jobserver_process_exiting(void) {
    return atomic_load(&exiting);
}

/* How many entries wait to be freed: in a child just that, since what they held is the parent's. */
static int stranded_of(const jobserver_client *client) {
    int stranded = 0;
    for (const struct jobserver_entry *entry = client->entries; entry != NULL; entry = entry->next) {
        stranded += entry->stranded ? 1 : 0;
    }
    return stranded;
}

/* How many holders a client keeps across a fork: its holds do, what was taken stays the parent's. */
static uint64_t holds_of(const jobserver_client *client) {
    uint64_t holds = 0;
    for (const struct jobserver_entry *entry = client->entries; entry != NULL; entry = entry->next) {
        holds += entry->kind == JOBSERVER_ENTRY_HOLD ? JOBSERVER_USE_HELD : 0;
    }
    return holds;
}

/*
 * Makes the child forget what its parent holds and who waits there. Runs in the child, whose only thread is the one
 * that forked, with the lock held. Descriptors of a client that is closed are left to jobserver_client_free.
 */
static void forked(void) {
    atomic_fetch_add(&generation, 1);
    atomic_store(&exiting, false);
    jobserver_implicit_forked();
    for (jobserver_client *client = clients; client != NULL; client = client->next) {
        uint64_t closed = atomic_load(&client->uses) & JOBSERVER_USE_CLOSED;
        atomic_store(&client->uses, closed | holds_of(client));
        atomic_store(&client->stranded, 0);
        atomic_store(&client->owed, stranded_of(client));
        for (int byte = 0; byte < 256; byte++) {
            atomic_store_explicit(&client->raw_out[byte], 0, memory_order_relaxed);
        }
        client->inherited = false;
        if (client->channel != NULL) {
            jobserver_channel_forked(client->channel);
        }
    }
}

/* Gives back what the client's cells and batches hold. Returns whether there was anything. */
static bool give_back_all(jobserver_client *client) {
    bool any = false;
    for (struct jobserver_entry *entry = client->entries; entry != NULL; entry = entry->next) {
        any = jobserver_entry_holds(entry) || any;
        jobserver_entry_give_back(entry);
    }
    return any;
}

/*
 * Waits until the other threads have let go of the client. What was just given back wakes those that wait for tokens;
 * each takes one, sees the exit, gives it back to wake the next, and leaves. Killed in between they would take a token
 * with them. Another process may get the token before they do: then they sleep on and hold nothing, so this wait ends
 * at a deadline.
 */
static void await_threads(jobserver_client *client, int64_t deadline) {
    bool busy = true;
    while (busy && jobserver_now() < deadline) {
        jobserver_pause();
        busy = atomic_load(&client->uses) % JOBSERVER_USE_CLOSED >= JOBSERVER_USE_WAITING;
        for (struct jobserver_entry *entry = client->entries; entry != NULL; entry = entry->next) {
            busy = busy || jobserver_entry_holds(entry);
        }
    }
}

/* Gives back what this process holds, and removes the fifos that it made and that no child of it needs. */
static void leave_process(void) {
    atomic_store(&exiting, true);
    jobserver_lock();
    int64_t deadline = jobserver_now() + LONGEST_EXIT;
    for (jobserver_client *client = clients; client != NULL; client = client->next) {
        if (give_back_all(client)) {
            await_threads(client, deadline);
        }
        bool ours = client->made_here && client->generation == jobserver_generation();
        if (ours && holds_of(client) == 0 && jobserver_client_enter(client) == 0) {
            jobserver_channel_remove(client->channel);
            jobserver_client_leave(client);
        }
    }
    jobserver_unlock();
}

/* Lists a client and stamps it with this process's generation. */
void jobserver_process_add(jobserver_client *client) {
    jobserver_platform_start(forked, leave_process);
    jobserver_lock();
    client->generation = jobserver_generation();
    client->next = clients;
    if (clients != NULL) {
        clients->previous = client;
    }
    clients = client;
    jobserver_unlock();
}

/* Takes a client off the list. */
void jobserver_process_remove(jobserver_client *client) {
    jobserver_lock();
    if (client->previous != NULL) {
        client->previous->next = client->next;
    } else {
        clients = client->next;
    }
    if (client->next != NULL) {
        client->next->previous = client->previous;
    }
    jobserver_unlock();
}

static bool same_pool(struct jobserver_pool one, struct jobserver_pool other) {
    return one.device == other.device && one.number == other.number;
}

/* Whether a client of this process made the pool that `client` leads to. The caller holds the lock. */
static bool made_here(const jobserver_client *client) {
    for (const jobserver_client *other = clients; other != NULL; other = other->next) {
        if (other->made_here && same_pool(client->pool, other->pool)) {
            return true;
        }
    }
    return false;
}

/*
 * Says that this process was started under the client's pool, so that it owns an implicit slot. It owns just one,
 * however often this is called, and none if it made the pool itself or was forked since it loaded the library.
 */
void jobserver_client_inherit(jobserver_client *client) {
    if (jobserver_client_enter(client) < 0) {
        return;
    }
    jobserver_lock();
    if (jobserver_generation() == 0 && !made_here(client)) {
        client->inherited = true;
        jobserver_implicit_inherit();
    }
    jobserver_unlock();
    jobserver_client_leave(client);
}
