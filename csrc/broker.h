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

/* What a journal has of a number, and what it was when somebody looked, whether there was room for it or not. */
struct jobserver_noted {
    int written;
    int seen;
};

/*
 * `given` tokens are out: `untaken` ones lie in the pipes as offers (or were given back there), the others are held.
 * Beside them `own` is 1 while the slot of its process is in use.
 */
struct jobserver_lease {
    jobserver_broker *broker; /* not to be looked at once the lease has ended: its owner may have freed both */
    int handles;              /* of this memory: the owner's, and observers' */
    jobserver_lease *next;    /* in the broker's list of those that have started, or of those that have not */
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
    bool claimed;          /* who waited for its start knows that it has started */
    bool gatekeeper_waits; /* until something moves */
    bool moved;            /* since the gatekeeper looked */
    struct jobserver_lease_waiter *waiters;
    int number;                   /* in the journal */
    struct jobserver_noted noted; /* its slots */

    /* hunger.c's: how it uses what it is offered. */
    bool hungry;        /* it took or gave back since an offer was left lying */
    bool fresh;         /* it has never taken any */
    bool probing;       /* it is offered a token to find out whether it waits for one */
    int64_t offered_at; /* when the offer that lies longest was made; 0 if it was given back by the lease */
    int64_t latency;    /* how soon it takes an offer, usually */
    int64_t probe_at;
    int64_t probe_pause;

    /* share.c's. */
    bool waiting;      /* it took its last offer, and there has been none for it since */
    int64_t served_at; /* when it was last given a token */
    int wanted;        /* how many are to lie in its pipes */
};

/* What is needed of whatever the slots of a broker come from. */
struct jobserver_demand {
    bool wanting; /* somebody would use one slot more at once */
    bool moving;  /* some lease is hungry */
    bool leases;  /* there are some that have started, or wait for that */
    int unused;   /* slots that nobody uses */
    int room;     /* how many the hungry leases may be offered in all */
    int spare;    /* those among them that no hungry lease is offered */
};

/* Where the slots of a broker come from if it has none of its own. Its owner makes the event. */
struct jobserver_source {
    jobserver_event *event;
    jobserver_broker *broker;
    struct jobserver_demand demand; /* now */
    struct jobserver_demand told;   /* what the source knows */
    int granted;
    int tolerated; /* spare slots that the source knows of and leaves where they are */
    bool rung;
};

struct jobserver_broker {
    struct jobserver_directory *directory;
    struct jobserver_news *news;
    struct jobserver_source *source;   /* or null: the slots are the broker's own */
    struct jobserver_journal *journal; /* or null */
    struct jobserver_bell changes;     /* rung when the state of a lease changes, once somebody asked for it */
    jobserver_lease *started;          /* lists of leases that have not ended */
    jobserver_lease *waiting;
    int limit;
    int out;                     /* slots that are given away: the sum of `given` and `own` of all leases */
    int allowed;                 /* slots that gates let be in use at most, but for what is set aside */
    int held_back;               /* free slots that are not offered for that */
    jobserver_event *gatekeeper; /* the event of who looks after the machine, or null */
    bool gatekeeper_waits;       /* until something moves */
    bool moved;                  /* since the gatekeeper looked */
    int failure;                 /* why no slots come any more, or 0 */
    int users; /* its owner until it stops it, leases, threads: while there are any, its descriptors are open */
    unsigned generation;
    unsigned leases_made;
    int64_t tickets;
    bool busy; /* bytes moved since it last slept */
    bool serving;
    bool stopped;
    bool freed; /* by its owner: the last user frees the memory */
};

/* lease_account.c: brings the accounts of a lease up to what is in its pipes. */
void jobserver_lease_refresh(jobserver_lease *lease, int64_t now);

/* lease_account.c: adds up the time of the slots in use; to be called before their number changes. */
void jobserver_lease_count(jobserver_lease *lease, int64_t now);
int jobserver_lease_slots(const jobserver_lease *lease);

/* lease_account.c: the number of slots in use may have changed: for the peak, and for the journal if there is one. */
void jobserver_lease_note(jobserver_lease *lease, int64_t now);

/* lease_account.c: each moves up to `count` tokens between the pool and the lease. */
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

/* share.c: takes up to so many slots away that nobody uses, and returns how many. */
int jobserver_share_reclaim(jobserver_broker *broker, int most, int64_t now);

/* journal.c: each writes the state of a lease, or the limit, if it has changed. There must be a journal. */
void jobserver_journal_slots(jobserver_lease *lease, int64_t now);
void jobserver_journal_limit(jobserver_broker *broker, int64_t now);
void jobserver_journal_free(struct jobserver_journal *journal);

/* hunger.c: a lease has just got the slot of its process; it took and gave back so many; its offer was withdrawn. */
void jobserver_hunger_begin(jobserver_lease *lease);
void jobserver_hunger_moved(jobserver_lease *lease, int took, int gave, int64_t now);
void jobserver_hunger_withdrawn(jobserver_lease *lease, bool others_are_hungry, int64_t now);

/* hunger.c: notes who has left an offer lying for longer than its grace; whether that still lasts; how long it is. */
void jobserver_hunger_judge(jobserver_lease *lease, int64_t now);
bool jobserver_hunger_in_grace(const jobserver_lease *lease, int64_t now);
int64_t jobserver_hunger_grace(const jobserver_lease *lease);

/* hunger.c: whether it is time to find out if a lease without offers wants one. */
bool jobserver_hunger_is_due(const jobserver_lease *lease, int64_t now);

/* gate.c: tells the gatekeeper, if he sleeps, that something moves. */
void jobserver_gate_ring(jobserver_broker *broker);

/*
 * source.c: makes it the broker's source (0, -EBUSY or JOBSERVER_CLOSED); and the reverse: with the reason if it failed,
 * or 0.
 */
int jobserver_source_attach(struct jobserver_source *source, jobserver_broker *broker);
void jobserver_source_detach(struct jobserver_source *source, int error);

/* source.c: the source cannot even be attached. Without the lock. */
void jobserver_source_fail(jobserver_broker *broker, int error);

/* source.c: clears the event and says what is needed now; false once the broker is stopped. Without the lock. */
bool jobserver_source_ask(struct jobserver_source *source, struct jobserver_demand *demand);

/* source.c: slots are there; up to so many that nobody uses are taken away, and it returns how many. Without the lock. */
void jobserver_source_grant(struct jobserver_source *source, int count);
int jobserver_source_reclaim(struct jobserver_source *source, int most);

/* source.c: so many spare slots are no reason to wake the source. Without the lock. */
void jobserver_source_tolerate(struct jobserver_source *source, int spare);

/* source.c: what is needed now, from share.c. */
void jobserver_source_need(struct jobserver_source *source, const struct jobserver_demand *now);

/* broker.c: one user more, and one less: the last one closes what it has, and frees it if its owner did before. */
void jobserver_broker_keep(jobserver_broker *broker);
void jobserver_broker_drop(jobserver_broker *broker);

/* broker.c: no slots come any more if `error` is one: who waits for the first one hears of it. */
void jobserver_broker_fail(jobserver_broker *broker, int error);

/* broker.c: whether this process made it: in a forked child it can only be freed, as can its leases. */
bool jobserver_broker_is_ours(const jobserver_broker *broker);

/* broker.c: whether it may be used: it is ours, and was not stopped. */
bool jobserver_broker_is_open(const jobserver_broker *broker);

/* broker.c: puts a lease on a list and takes it off. */
void jobserver_broker_link(jobserver_lease **list, jobserver_lease *lease);
void jobserver_broker_unlink(jobserver_lease **list, jobserver_lease *lease);

#endif
