/*
 * The GNU make jobserver: a counting semaphore between processes, made of one byte a token in a pipe.
 *
 * A client is one process's view of one pool. A token cell (jobserver_token) holds at most one token; it is made
 * before the wait, so that a token that was read always has an owner that can give it back. Rules of the protocol: GNU
 * make manual, "POSIX Jobserver Interaction".
 *
 * Results: 0 or a positive value on success, a negated errno on failure, or one of enum jobserver_error for what has
 * no errno. Times are nanoseconds; a negative timeout has no limit, 0 tries once.
 *
 * Threads: every function may be called from any thread. One cell is acquired into by one thread at a time; releases
 * of one cell may race. A thread must not be cancelled in here. Signals: a wait returns -EINTR and holds nothing more
 * than before; call it again. Fork: a child holds none of the tokens of its parent. Exit: tokens in cells and batches
 * are given back by exit(), not by _exit(); from then on nobody can take any (-ECANCELED). SIGPIPE must be ignored, as
 * Python does: a pool without a reader is then reported as -EPIPE.
 */
#ifndef JOBSERVER_H
#define JOBSERVER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* [declarations] Plain C from here to the closing mark: the build reads it as the cffi cdef. */

enum jobserver_error {
    JOBSERVER_CLOSED = -10001,          /* the client was closed */
    JOBSERVER_OVER_RELEASE = -10002,    /* no token of this process is out */
    JOBSERVER_NOT_OUT = -10003,         /* this byte was not taken by this process */
    JOBSERVER_STRANDED = -10004,        /* an earlier release failed where nobody could be told */
    JOBSERVER_UNSUPPORTED = -10005,     /* this kind of pool cannot do that safely here */
    JOBSERVER_LIMIT = -10006,           /* more tokens than the pipe can hold */
    JOBSERVER_GONE = -10007,            /* the far end of the pool was closed */
    JOBSERVER_NOT_A_PIPE = -10008,      /* neither a pipe nor a socket nor a character device */
    JOBSERVER_WRONG_DIRECTION = -10009, /* not open for reading, or not open for writing */
    JOBSERVER_READY = -10010,           /* something else that was waited for came first; nothing was taken */
    JOBSERVER_TOO_MANY = -10011,        /* the pool has all its tokens already */
    JOBSERVER_LEASE_STATE = -10012,     /* the lease has no process yet, has one already, or has ended */
    JOBSERVER_FOREIGN = -10013,         /* the client belongs to another copy of the core in this process */
    JOBSERVER_WINDOWS = -20000          /* this minus a code of GetLastError, which has no errno */
};

typedef struct jobserver_client jobserver_client;
typedef struct jobserver_token jobserver_token;
typedef struct jobserver_batch jobserver_batch;
typedef struct jobserver_hold jobserver_hold;
typedef struct jobserver_event jobserver_event;
typedef struct jobserver_table jobserver_table;

/* Clients. Each *client that comes out is owned by the caller, who gives it up with jobserver_client_free. */
int jobserver_client_create_pipe(int limit, jobserver_client **client);
int jobserver_client_create_fifo(const char *path, int limit, jobserver_client **client);
int jobserver_client_create_private_fifo(const char *directory, int limit, jobserver_client **client);
int jobserver_client_create_semaphore(int limit, jobserver_client **client);
int jobserver_client_open_descriptors(int read_fd, int write_fd, jobserver_client **client);
int jobserver_client_open_path(const char *path, jobserver_client **client);
int jobserver_client_open_semaphore(const char *name, jobserver_client **client);
int jobserver_client_close(jobserver_client *client);
void jobserver_client_free(jobserver_client *client);
int jobserver_client_available(jobserver_client *client);
int jobserver_client_settle(jobserver_client *client, int *stranded);
int jobserver_client_descriptors(jobserver_client *client, int descriptors[2]);
int jobserver_client_path(jobserver_client *client, char *path, size_t size);
void jobserver_client_inherit(jobserver_client *client);
int jobserver_check_descriptor(int descriptor, int for_writing);

/*
 * One token in a cell. The serial names one taking, so that a release that comes late frees nobody else's token; 0
 * names what is held, for a caller who alone has the cell.
 */
jobserver_token *jobserver_token_new(jobserver_client *client);
void jobserver_token_free(jobserver_token *token);
int64_t jobserver_token_acquire(jobserver_token *token, int64_t timeout);
int64_t jobserver_token_acquire_implicit(jobserver_token *token);
int jobserver_token_release(jobserver_token *token, int64_t serial);
int jobserver_token_drop(jobserver_token *token, int64_t serial);
int jobserver_token_byte(jobserver_token *token);

/*
 * Waits for a token or for one of `count` other things: POSIX descriptors that become readable, Windows handles. Where a
 * token is free it is taken without a look at the others; else JOBSERVER_READY if one of them is ready.
 */
int64_t jobserver_token_acquire_or(jobserver_token *token, int64_t timeout, const intptr_t *others, int count);

/* Acquire without a limit of time, and release with serial 0. One argument makes a call from Python much cheaper. */
int jobserver_token_take(jobserver_token *token);
int jobserver_token_give(jobserver_token *token);

/* Tokens whose byte the caller keeps. */
int jobserver_acquire_raw(jobserver_client *client, int64_t timeout);
int jobserver_release_raw(jobserver_client *client, int byte);

/* The same in one argument: no limit of time; any byte; GNU make's byte. */
int jobserver_take_raw(jobserver_client *client);
int jobserver_give_raw(jobserver_client *client);
int jobserver_give_raw_plus(jobserver_client *client);

/* Many tokens at once. */
jobserver_batch *jobserver_batch_new(jobserver_client *client, int maximum);
void jobserver_batch_free(jobserver_batch *batch);
int jobserver_batch_acquire(jobserver_batch *batch, int minimum, int64_t timeout);
int jobserver_batch_acquire_or(jobserver_batch *batch, int minimum, int64_t timeout, const intptr_t *others, int count);
int jobserver_batch_release(jobserver_batch *batch);

/* Keeps the descriptors (and a fifo that this process made) alive after the client is closed. */
jobserver_hold *jobserver_hold_new(jobserver_client *client);
void jobserver_hold_free(jobserver_hold *hold);

/*
 * An event wakes a thread that waits: for it alone (0, or -EINTR: wait again), or, as one of the others, for a token.
 * It stays set until it is cleared. Setting is async-signal-safe. A forked child cannot set its parent's events.
 */
int jobserver_event_new(jobserver_event **event);
void jobserver_event_free(jobserver_event *event);
void jobserver_event_set(jobserver_event *event);
void jobserver_event_clear(jobserver_event *event);
int jobserver_event_wait(jobserver_event *event);
intptr_t jobserver_event_waitable(const jobserver_event *event);

/* Whether this process owns an implicit slot; and an event that is set whenever the slot becomes free. */
int jobserver_implicit_owned(void);
int jobserver_implicit_watch(jobserver_event *event);

/* Windows: what ends the waits of one thread, as signals do elsewhere (JOBSERVER_UNSUPPORTED). */
int jobserver_interrupt_from(intptr_t library, const char *function, unsigned thread);

/*
 * Leases: a broker gives each process that it serves pipes of the process's own, and moves tokens between them and its
 * pool. So it knows what each holds, and has it back when the process is gone. One thread serves, in
 * jobserver_broker_serve; another one, in jobserver_broker_bridge, if the slots come from an outer jobserver; all other
 * functions may be called from any. A broker that was stopped, or freed while it has leases, ends with the last of
 * them. On Windows a lease is always a semaphore, whose name is its path, and there are no descriptors; bridges have
 * not been tried there. A forked child can only free what it inherits.
 */
typedef struct jobserver_broker jobserver_broker;
typedef struct jobserver_lease jobserver_lease;

enum jobserver_lease_style { JOBSERVER_LEASE_PIPE, JOBSERVER_LEASE_FIFO };

enum jobserver_lease_state {
    JOBSERVER_LEASE_OPEN,    /* has no slot yet */
    JOBSERVER_LEASE_QUEUED,  /* waits for the slots to start with */
    JOBSERVER_LEASE_STARTED, /* has the slot that its process runs on, and is offered tokens */
    JOBSERVER_LEASE_ORPHANS, /* its process is gone, processes that it started are not */
    JOBSERVER_LEASE_ENDED    /* all that it had is back in the pool */
};

typedef struct jobserver_lease_terms {
    int style;              /* an enum jobserver_lease_style */
    int minimum;            /* slots that are set aside for it from its start to its end, its process's included */
    int maximum;            /* slots that it has at most, or 0 for no limit of its own */
    double weight;          /* its share of what several want, beside the others' weights */
    int life_line;          /* whether processes that its process leaves behind are waited for */
    int64_t orphan_timeout; /* how long they are waited for */
} jobserver_lease_terms;

typedef struct jobserver_lease_report {
    int state;             /* an enum jobserver_lease_state */
    int queued_before;     /* leases that wait in front of it */
    int slots;             /* in use: the tokens that it holds, and its process's slot */
    int untaken;           /* tokens that it is offered */
    int peak;              /* the most slots that were in use at once */
    int lost;              /* tokens that it held when its process had gone */
    int orphaned;          /* whether processes were left behind: 1 all gone in time, 2 not */
    int64_t taken;         /* tokens taken in all, so far as it was seen */
    int64_t waits;         /* how often there was no token to offer after it had taken the last one */
    int64_t over_released; /* bytes given back beyond what was taken */
    int64_t foreign;       /* bytes given back that are no token of this pool */
    int64_t slot_time;     /* nanoseconds that slots were in use, added up */
    int64_t queue_time;    /* nanoseconds between asking for the first slot and getting it */
} jobserver_lease_report;

typedef struct jobserver_broker_report {
    int limit;
    int in_use;    /* slots; more than the limit while a smaller one waits for jobs to end */
    int queued;    /* leases that wait for their first slot */
    int held_back; /* free slots that are not offered, by jobserver_broker_allow */
} jobserver_broker_report;

typedef struct jobserver_change {
    int64_t time; /* of the clock that never goes back, in nanoseconds */
    int lease;    /* its number, from 1 on; 0: what has changed is the limit of the pool */
    int slots;    /* in use from then on; or the limit */
} jobserver_change;

int jobserver_broker_create(const char *directory, int limit, jobserver_broker **broker);
int jobserver_broker_serve(jobserver_broker *broker);
int jobserver_broker_bridge(jobserver_broker *broker, jobserver_client *client);
void jobserver_broker_stop(jobserver_broker *broker);
void jobserver_broker_free(jobserver_broker *broker);
int jobserver_broker_resize(jobserver_broker *broker, int limit);
int jobserver_broker_describe(jobserver_broker *broker, jobserver_broker_report *report);
int jobserver_broker_allow(jobserver_broker *broker, int most);
int jobserver_broker_rest(jobserver_broker *broker, jobserver_event *event, int64_t interval);

/*
 * The caller owns a lease and gives it up with jobserver_lease_free. From its opening on its address is known; the three
 * descriptors (-1 for none) are open until jobserver_lease_spawned: read end, write end, life line. Starting waits for the
 * slots, also after -EINTR in the same place; giving up frees the place, or the slots if no process has used them.
 * jobserver_lease_observe makes a second handle, which is good for jobserver_lease_describe also after the lease was freed;
 * jobserver_lease_forget gives it up.
 */
int jobserver_lease_open(jobserver_broker *broker, const jobserver_lease_terms *terms, jobserver_lease **lease);
void jobserver_lease_free(jobserver_lease *lease);
int jobserver_lease_descriptors(jobserver_lease *lease, int descriptors[3]);
int jobserver_lease_path(jobserver_lease *lease, char *path, size_t size);
int jobserver_lease_start(jobserver_lease *lease, int64_t timeout);
void jobserver_lease_give_up(jobserver_lease *lease);
int jobserver_lease_spawned(jobserver_lease *lease, int process);
int jobserver_lease_end(jobserver_lease *lease);
int jobserver_lease_wait(jobserver_lease *lease, int64_t timeout);
int jobserver_lease_describe(jobserver_lease *lease, jobserver_lease_report *report);
jobserver_lease *jobserver_lease_observe(jobserver_lease *lease);
void jobserver_lease_forget(jobserver_lease *lease);

/*
 * Leases for processes that are not children of this one: they get the descriptors through a socket, and a lease then
 * ends when the caller says so (jobserver_lease_leave). jobserver_peer tells who is at the far end of a local socket:
 * the user's number, and the process's (0 where that is not known).
 */
int jobserver_broker_watch(jobserver_broker *broker);
int jobserver_broker_lock(jobserver_broker *broker);
int jobserver_lease_leave(jobserver_lease *lease);
int jobserver_peer(int socket, int64_t *user, int *process);

/* The journal: what changed and when, for who shows it. Nothing is paid for it before jobserver_broker_record. */
int jobserver_broker_record(jobserver_broker *broker, int room);
int jobserver_broker_changes(jobserver_broker *broker, jobserver_change *changes, int most, int64_t *dropped);
int jobserver_lease_number(jobserver_lease *lease);

/* For a program of one's own that runs a command: what the command leaves behind becomes a child of this process. */
int jobserver_adopt_orphans(void);

/* All the functions above, for extensions that do not link them: see jobserver_table.h and jobserver_import.h. */
const jobserver_table *jobserver_functions(void);

/* [/declarations] */

#ifdef __cplusplus
}
#endif

#endif
