/* What the files of the broker share. Everything in here is under jobserver_lock. */
#ifndef JOBSERVER_BROKER_H
#define JOBSERVER_BROKER_H

#include "broker_platform.h"
#include "internal.h"

/* Somebody who sleeps until the state of a lease changes. It stands on that thread's stack. */
struct jobserver_lease_waiter {
    struct jobserver_bell bell;
    struct jobserver_lease_waiter *next;
};

/*
 * `given` tokens are out: `untaken` ones lie in the pipes as offers (or were given back there), the others are held.
 * Beside them `own` is 1 while the slot of its process is in use.
 */
struct jobserver_lease {
    jobserver_broker *broker;
    jobserver_lease *next; /* in the broker's list of those that have started, or of those that have not */
    jobserver_lease *previous;
    struct jobserver_lease_pipes pipes;
    struct jobserver_watch *watch;
    jobserver_lease_terms terms;
    jobserver_lease_report report; /* what is counted on and on; the rest is filled in when it is asked for */
    enum jobserver_lease_state state;
    int given;
    int untaken;
    int own;
    int64_t changed_at; /* until then slot_time is added up */
    int64_t ticket;     /* its place in the queue */
    int64_t queued_at;
    int64_t orphans_until;
    bool claimed; /* who waited for its start knows that it has started */
    bool moved;   /* its pipes are to be looked at */
    struct jobserver_lease_waiter *waiters;

    /* share.c's: how it uses what it is offered. */
    bool hungry;        /* it took or gave back since an offer was left lying */
    bool fresh;         /* it has never taken any */
    bool probing;       /* it is offered a token to find out whether it waits for one */
    bool waiting;       /* it took its last offer, and there has been none for it since */
    int64_t offered_at; /* when the offer that lies longest was made; 0 if it was given back by the lease */
    int64_t latency;    /* how soon it takes an offer, usually */
    int64_t served_at;  /* when it was last given a token */
    int64_t probe_at;
    int64_t probe_pause;
    int wanted; /* how many are to lie in its pipes */
};

struct jobserver_broker {
    struct jobserver_directory *directory;
    struct jobserver_news *news;
    struct jobserver_bell changes; /* rung when the state of a lease changes, once somebody asked for it */
    jobserver_lease *started;      /* lists of leases that have not ended */
    jobserver_lease *waiting;
    int limit;
    int out; /* slots that are given away: the sum of `given` and `own` of all leases */
    int references;
    unsigned generation;
    unsigned leases_made;
    int64_t tickets;
    bool busy; /* bytes moved since it last slept */
    bool serving;
    bool stopped;
};

/* lease.c: brings the accounts of a lease up to what is in its pipes. */
void jobserver_lease_refresh(jobserver_lease *lease, int64_t now);

/* lease.c: adds up the time of the slots in use; to be called before their number changes. */
void jobserver_lease_count(jobserver_lease *lease, int64_t now);
int jobserver_lease_slots(const jobserver_lease *lease);

/* lease.c: each moves up to `count` tokens between the pool and the lease. */
int jobserver_lease_offer(jobserver_lease *lease, int count);
int jobserver_lease_withdraw(jobserver_lease *lease, int count);

/* lease.c: the process is gone; perhaps with all its descendants. Both may end the lease. */
void jobserver_lease_exited(jobserver_lease *lease, int64_t now);
void jobserver_lease_all_gone(jobserver_lease *lease, int64_t now);

/* lease.c: takes everything back. */
void jobserver_lease_finish(jobserver_lease *lease, int64_t now);

/* lease.c: gives a lease that is queued its slot. */
void jobserver_lease_let_start(jobserver_lease *lease, int64_t now);

/* lease.c: lets those who wait for a lease, or for any, look at it again. */
void jobserver_lease_ring(jobserver_lease *lease);

/* share.c: gives out what there is. Returns when to do so again even if nothing happens, or -1 for never. */
int64_t jobserver_share(jobserver_broker *broker, int64_t now);

/* share.c: notes that a lease took and gave back so many. */
void jobserver_share_moved(jobserver_lease *lease, int took, int gave, int64_t now);
void jobserver_share_begin(jobserver_lease *lease);

/* broker.c: a reference more, and one less, with which it may be freed. */
void jobserver_broker_keep(jobserver_broker *broker);
void jobserver_broker_drop(jobserver_broker *broker);

/* broker.c: whether it may be used: not in a forked child. */
bool jobserver_broker_is_ours(const jobserver_broker *broker);

/* broker.c: puts a lease on a list and takes it off. */
void jobserver_broker_link(jobserver_lease **list, jobserver_lease *lease);
void jobserver_broker_unlink(jobserver_lease **list, jobserver_lease *lease);

#endif
