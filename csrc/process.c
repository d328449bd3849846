#include "process.h"

#include "internal.h"

/*
 * How long exit() waits for other threads, in nanoseconds. Nobody stays awake inside for long, unless a signal handler
 * of the same thread has called exit(). Those who take asleep may have gone on sleeping: another process was faster.
 */
#define LONGEST_AWAKE 1000000000
#define LONGEST_ASLEEP 50000000

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

/* Makes one client forget what the parent of this process holds, and who waits there. */
static void forget(jobserver_client *client) {
    uint64_t closed = atomic_load(&client->uses) & JOBSERVER_USE_CLOSED;
    atomic_store(&client->uses, closed | holds_of(client));
    atomic_store(&client->asleep, 0);
    atomic_store(&client->left_woken, false);
    atomic_store(&client->taking_asleep, 0);
    atomic_store(&client->stranded, 0);
    atomic_store(&client->owed, stranded_of(client));
    for (int byte = 0; byte < 256; byte++) {
        atomic_store_explicit(&client->raw_out[byte], 0, memory_order_relaxed);
    }
    client->inherited = false;
    for (struct jobserver_entry *entry = client->entries; entry != NULL; entry = entry->next) {
        if (entry->kind == JOBSERVER_ENTRY_BATCH) {
            jobserver_batch_forked((jobserver_batch *)entry);
        }
    }
    if (client->channel != NULL) {
        jobserver_channel_forked(client->channel);
    }
}

/*
 * Runs in the child, whose only thread is the one that forked, with the lock held. Descriptors of a client that is
 * closed are left to jobserver_client_free.
 */
void jobserver_process_forked(void) {
    atomic_fetch_add(&generation, 1);
    atomic_store(&exiting, false);
    jobserver_implicit_forked();
    for (jobserver_client *client = clients; client != NULL; client = client->next) {
        forget(client);
    }
}

/* Sees to it that nobody who sleeps in here is woken any more in the place of another process's waiter. */
static void retire_sleepers(void) {
    jobserver_lock();
    for (jobserver_client *client = clients; client != NULL; client = client->next) {
        if (jobserver_client_pin(client)) {
            jobserver_channel_retire(client->channel);
            jobserver_client_drop(client);
        }
    }
    jobserver_unlock();
}

/* Whether anybody in here may have taken a token that is in no cell or batch yet. */
static bool is_awake(jobserver_client *client) {
    uint64_t inside = (atomic_load(&client->uses) & ~JOBSERVER_USE_CLOSED) / JOBSERVER_USE_WAITING;
    return inside > atomic_load(&client->asleep);
}

/* Whether anybody in here may be about to put back the token that woke him. */
static bool takes_asleep(jobserver_client *client) {
    return atomic_load(&client->taking_asleep) > 0;
}

/* Whether another thread is about to write what it claimed before exit() could. */
static bool is_giving_back(jobserver_client *client) {
    bool is_so = false;
    for (struct jobserver_entry *entry = client->entries; entry != NULL; entry = entry->next) {
        is_so = is_so || jobserver_entry_is_returning(entry);
    }
    return is_so;
}

/* Waits until this is so of no client, but not longer than `limit` nanoseconds. */
static void wait_while_any(bool (*is_so)(jobserver_client *), int64_t limit) {
    int64_t end = jobserver_now() + limit;
    bool any = true;
    while (any && jobserver_now() < end) {
        any = false;
        jobserver_lock();
        for (jobserver_client *client = clients; client != NULL; client = client->next) {
            any = any || is_so(client);
        }
        jobserver_unlock();
        if (any) {
            jobserver_pause();
        }
    }
}

/*
 * Gives back what the client's cells and batches hold, and removes the fifo if no child of ours needs it. A waiter that
 * was woken by a token just before it was retired leaves without it, or has left: so another's is woken instead.
 */
static void give_up(jobserver_client *client) {
    for (struct jobserver_entry *entry = client->entries; entry != NULL; entry = entry->next) {
        jobserver_entry_give_back(entry);
    }
    if (atomic_load(&client->asleep) > 0 || atomic_load(&client->left_woken)) {
        unsigned char lost;
        jobserver_pass_wake_up_on(client->channel, &lost);
    }
    bool ours = client->made_here && client->generation == jobserver_generation();
    if (ours && holds_of(client) == 0) {
        jobserver_channel_remove(client->channel);
    }
}

void jobserver_process_exit(void) {
    atomic_store(&exiting, true);
    retire_sleepers();
    wait_while_any(is_awake, LONGEST_AWAKE);
    jobserver_lock();
    for (jobserver_client *client = clients; client != NULL; client = client->next) {
        if (jobserver_client_pin(client)) {
            give_up(client);
            jobserver_client_drop(client);
        }
    }
    jobserver_unlock();
    wait_while_any(is_giving_back, LONGEST_AWAKE);
    wait_while_any(takes_asleep, LONGEST_ASLEEP);
}

/* Lists a client and stamps it with this process's generation. */
void jobserver_process_add(jobserver_client *client) {
    jobserver_platform_start();
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
 * however often this is called, and none if it made the pool itself, if it was forked since it loaded the library, or if
 * another copy of the core has it.
 */
void jobserver_client_inherit(jobserver_client *client) {
    if (jobserver_client_enter(client) < 0) {
        return;
    }
    jobserver_lock();
    if (jobserver_generation() == 0 && !made_here(client) && jobserver_claim_implicit()) {
        client->inherited = true;
        jobserver_implicit_inherit();
    }
    jobserver_unlock();
    jobserver_client_leave(client);
}
