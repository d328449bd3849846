/*
 * What a process does around each token, whichever way it takes it: the same steps for loops in C, Rust and Python, so
 * that only the way differs. Times are nanoseconds of CLOCK_MONOTONIC.
 */
#ifndef WORKER_H
#define WORKER_H

#include <stdint.h>

enum { LATENCIES = 1 << 15, WAITS = 1 << 10 };

/* What the processes of one pool share. With one token in the pool nobody else writes here meanwhile. */
struct shared {
    int64_t released; /* when the token was last given back, just before that */
    int64_t count;
    int64_t latencies[LATENCIES]; /* from there to the next one who has it; the newest overwrite the oldest */
};

/* One process, in memory that the measuring process sees too. */
struct worker {
    struct shared *shared; /* may be null */
    int64_t hold;          /* for how long to sleep with a token */
    int64_t began;         /* when the wait began */
    int64_t taken;         /* when the last token was taken */
    int64_t tokens;        /* how many were */
    int64_t waits[WAITS];  /* how long the last ones took */
    int go;                /* -1, or a pipe: a byte there says that the wait may begin */
    int times;             /* and where to write when the token was taken */
};

typedef void step(struct worker *worker);

/* To be called before each wait, with no token held. */
void worker_before(struct worker *worker);

/* To be called with each token. */
void worker_held(struct worker *worker);

#endif
