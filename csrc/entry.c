/* What keeps a client alive: cells, batches and holds; and those that still owe a token when their owner is gone. */
#include <stdlib.h>

#include "internal.h"

void jobserver_entry_add(jobserver_client *client, struct jobserver_entry *entry, enum jobserver_entry_kind kind) {
    entry->client = client;
    entry->kind = kind;
    atomic_fetch_add(&client->references, 1);
    jobserver_lock();
    entry->next = client->entries;
    if (entry->next != NULL) {
        entry->next->previous = entry;
    }
    client->entries = entry;
    jobserver_unlock();
}

/* Takes an entry out of its client's list. The caller holds the lock. */
static void unlink_entry(struct jobserver_entry *entry) {
    if (entry->previous != NULL) {
        entry->previous->next = entry->next;
    } else {
        entry->client->entries = entry->next;
    }
    if (entry->next != NULL) {
        entry->next->previous = entry->previous;
    }
}

void jobserver_entry_remove(struct jobserver_entry *entry) {
    jobserver_lock();
    unlink_entry(entry);
    jobserver_unlock();
    jobserver_client_unreference(entry->client);
}

void jobserver_entry_strand(struct jobserver_entry *entry, int error) {
    jobserver_client *client = entry->client;
    jobserver_lock();
    entry->stranded = true;
    atomic_fetch_add(&client->owed, 1);
    atomic_store(&client->stranded, error);
    jobserver_unlock();
}

int jobserver_entry_give_back(struct jobserver_entry *entry) {
    switch (entry->kind) {
    case JOBSERVER_ENTRY_TOKEN:
        return jobserver_token_give_back((jobserver_token *)entry);
    case JOBSERVER_ENTRY_BATCH:
        return jobserver_batch_give_back((jobserver_batch *)entry);
    case JOBSERVER_ENTRY_HOLD:
        break;
    }
    return 0;
}

bool jobserver_entry_is_returning(struct jobserver_entry *entry) {
    switch (entry->kind) {
    case JOBSERVER_ENTRY_TOKEN:
        return jobserver_token_is_returning((jobserver_token *)entry);
    case JOBSERVER_ENTRY_BATCH:
        return jobserver_batch_is_returning((jobserver_batch *)entry);
    case JOBSERVER_ENTRY_HOLD:
        break;
    }
    return false;
}

JOBSERVER_APART int jobserver_client_pay(jobserver_client *client) {
    struct jobserver_entry *paid = NULL;
    int error = 0;
    jobserver_lock();
    for (struct jobserver_entry *entry = client->entries, *next; entry != NULL; entry = next) {
        next = entry->next;
        if (!entry->stranded) {
            continue;
        }
        int result = jobserver_entry_give_back(entry);
        if (result < 0) {
            error = result;
        } else {
            atomic_fetch_sub(&client->owed, 1);
            unlink_entry(entry);
            entry->next = paid;
            paid = entry;
        }
    }
    jobserver_unlock();
    while (paid != NULL) {
        struct jobserver_entry *next = paid->next;
        free(paid);
        jobserver_client_unreference(client);
        paid = next;
    }
    return error;
}

/*
 * Tries again to give back what could not be given back when its owner freed it. Returns the error that nobody was
 * told of yet (or that stands in the way still), and 0 once there is none; `stranded` is how many are still held.
 */
int jobserver_client_settle(jobserver_client *client, int *stranded) {
    int error = jobserver_client_pay(client);
    int told = atomic_exchange(&client->stranded, 0);
    *stranded = atomic_load(&client->owed);
    return told != 0 ? told : error;
}

struct jobserver_hold {
    struct jobserver_entry entry; /* first: entries are freed through it */
};

/* Returns null when the client is closed or memory is short. */
jobserver_hold *jobserver_hold_new(jobserver_client *client) {
    jobserver_hold *hold = calloc(1, sizeof *hold);
    if (hold == NULL || jobserver_client_enter(client) < 0) {
        free(hold);
        return NULL;
    }
    jobserver_client_keep(client);
    jobserver_entry_add(client, &hold->entry, JOBSERVER_ENTRY_HOLD);
    return hold;
}

/* Gives the hold up. A forked child gives up its own copy. */
void jobserver_hold_free(jobserver_hold *hold) {
    jobserver_client_drop(hold->entry.client);
    jobserver_entry_remove(&hold->entry);
    free(hold);
}
