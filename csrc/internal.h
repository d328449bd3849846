/* What the platform-neutral files share. */
#ifndef JOBSERVER_INTERNAL_H
#define JOBSERVER_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "jobserver.h"
#include "platform.h"

/*
 * For a function on the path of a token: what it calls is inlined. Processors predict returns badly after a system call,
 * so each level between the function and its system call costs about a hundredth of the whole pair.
 */
#if defined(__GNUC__)
#define JOBSERVER_FLAT __attribute__((flatten))
#define JOBSERVER_APART __attribute__((noinline, cold)) /* is not on that path */
#else
#define JOBSERVER_FLAT
#define JOBSERVER_APART
#endif

/* Everything that keeps a client alive stands in the client's list of entries, under jobserver_lock. */
enum jobserver_entry_kind { JOBSERVER_ENTRY_TOKEN, JOBSERVER_ENTRY_BATCH, JOBSERVER_ENTRY_HOLD };

struct jobserver_entry {
    jobserver_client *client;
    struct jobserver_entry *next;
    struct jobserver_entry *previous;
    enum jobserver_entry_kind kind;
    bool stranded; /* freed by its owner while a release failed: settled later */
};

/*
 * One word says whether the descriptors may be used: CLOSED, how many calls are inside (WAITING each), and how many
 * holders there are (tokens, raw tokens, batches, holds). The descriptors are closed by whoever brings a CLOSED word's
 * counts to zero; nobody enters after that.
 */
#define JOBSERVER_USE_HELD ((uint64_t)1)
#define JOBSERVER_USE_WAITING ((uint64_t)1 << 32)
#define JOBSERVER_USE_CLOSED ((uint64_t)1 << 63)

struct jobserver_client {
    const void *home; /* the copy of the core that made it; first, since other copies may have another struct */
    jobserver_channel *channel;
    struct jobserver_pool pool;
    _Atomic uint64_t uses;
    atomic_uint asleep;        /* how many of those inside sleep, and will look whether the process exits */
    atomic_uint taking_asleep; /* how many of those are woken by nothing but a token, with it in their hands */
    atomic_bool left_woken;    /* somebody was woken for a token and left without it, since the process exits */
    atomic_int references;     /* the owner, and each entry */
    atomic_int stranded;       /* negated errno of a release that nobody was told of, or 0 */
    atomic_int owed;           /* entries that are stranded */
    atomic_int raw_hint;       /* a byte that is likely to be out */
    atomic_uint raw_out[256];
    bool inherited; /* this process may lend its implicit slot to this pool */
    bool made_here; /* this process, or one that it was forked from, made the pool */
    unsigned generation;
    jobserver_client *next;
    jobserver_client *previous;
    struct jobserver_entry *entries;
};

/* Counts the forks between the process that loaded the library and this one. */
unsigned jobserver_generation(void);

/*
 * Whether this copy of the core made the client. An extension may have compiled in a copy of its own, whose lock and
 * lists are not ours.
 */
bool jobserver_client_is_ours(const jobserver_client *client);

/* Enters as a waiter: until it leaves, the channel is there. 0, JOBSERVER_CLOSED or JOBSERVER_FOREIGN. */
int jobserver_client_enter(jobserver_client *client);

/* The same at the start of a call that can tell of an earlier failure: JOBSERVER_STRANDED if there was one. */
int jobserver_client_begin(jobserver_client *client);

/* Leaves again: a waiter that got something becomes a holder, one that did not is gone. */
void jobserver_client_keep(jobserver_client *client);
void jobserver_client_leave(jobserver_client *client);

/* Adds a holder while somebody is sure to be inside or to hold, and takes one away. */
void jobserver_client_hold(jobserver_client *client);
void jobserver_client_drop(jobserver_client *client);

/* Adds a holder, whoever is there, unless the channel is closed (false). The caller sees to it that the client lives. */
bool jobserver_client_pin(jobserver_client *client);

/* Gives up one reference; the last one frees the client. */
void jobserver_client_unreference(jobserver_client *client);

/* Puts an entry into the client's list, with a reference; and the reverse, which may free the client. */
void jobserver_entry_add(jobserver_client *client, struct jobserver_entry *entry, enum jobserver_entry_kind kind);
void jobserver_entry_remove(struct jobserver_entry *entry);

/* Tries again to give back what is stranded. Returns the last failure, 0 if there is nothing left. */
int jobserver_client_pay(jobserver_client *client);

/* Leaves an entry to jobserver_client_pay, since giving back what it holds failed with `error`. */
void jobserver_entry_strand(struct jobserver_entry *entry, int error);

/* Gives back what an entry still holds. 0 if it holds nothing now, or if another thread is giving it back. */
int jobserver_entry_give_back(struct jobserver_entry *entry);
int jobserver_token_give_back(jobserver_token *token);
int jobserver_batch_give_back(jobserver_batch *batch);

/* Whether a thread is giving back at this moment what an entry holds. */
bool jobserver_entry_is_returning(struct jobserver_entry *entry);
bool jobserver_token_is_returning(const jobserver_token *token);
bool jobserver_batch_is_returning(const jobserver_batch *batch);

/* Makes a batch forget what the parent of this process holds. Async-signal-safe. */
void jobserver_batch_forked(jobserver_batch *batch);

/* Leaves a token that was taken and could not be put back to jobserver_client_pay. */
void jobserver_token_strand(jobserver_client *client, unsigned char byte, int error);

/* raw.c: counts a token with this byte as out. The caller has made the client a holder. */
void jobserver_raw_add(jobserver_client *client, unsigned char byte);

/* wait.c: takes 1 to `size` tokens before something ends the wait. The caller has entered. */
int jobserver_take(jobserver_client *client, unsigned char *bytes, size_t size, const struct jobserver_until *until);
int64_t jobserver_deadline(int64_t timeout);

/* wait.c: locks the pool. The caller has entered. */
int jobserver_wait_for_lock(jobserver_client *client, jobserver_pool_lock *lock, const struct jobserver_until *until);

/* wait.c: wakes the next waiter if there are tokens left. 0, or an error with which the caller is left with `byte`. */
int jobserver_pass_wake_up_on(jobserver_channel *channel, unsigned char *byte);

/* implicit.c: the one slot that a process owns without a token. */
void jobserver_implicit_inherit(void);
bool jobserver_implicit_take(void);
void jobserver_implicit_give_back(void);
bool jobserver_implicit_lend(void);
void jobserver_implicit_unlend(void);
void jobserver_implicit_forked(void);
void jobserver_implicit_unwatch(const jobserver_event *event); /* before an event is freed */

/* Sleeps until the event is set or the deadline (negative for none). 0, -ETIMEDOUT or -EINTR. */
int jobserver_event_wait_until(jobserver_event *event, int64_t deadline);

#endif
