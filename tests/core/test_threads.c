/* Many at once, with two witnesses: the tokens in the pipe at the end, and a count of those at work at any time. */
#include "check.h"
#include "pools.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { WORKERS = 8, LIMIT = 3 };

struct hammer {
    jobserver_client *client;
    int ends[2];
    atomic_int *at_work; /* shared by processes */
    atomic_int *overlapped;
};

/* Between a taking and its giving back no more than the limit may be in here. */
static void work(struct hammer *hammer, int tokens) {
    int count = atomic_fetch_add(hammer->at_work, tokens) + tokens;
    CHECK(count <= LIMIT);
    if (count > tokens) {
        atomic_fetch_add(hammer->overlapped, 1);
    }
    for (int i = 0; i < 20 && *hammer->at_work < LIMIT; i++) {
        sched_yield();
    }
    atomic_fetch_sub(hammer->at_work, tokens);
}

static void take_one(struct hammer *hammer, jobserver_token *token, int64_t timeout) {
    int64_t serial = jobserver_token_acquire(token, timeout);
    if (serial > 0) {
        work(hammer, 1);
        CHECK_EQUAL(jobserver_token_release(token, serial), 0);
    } else {
        CHECK(serial == -EAGAIN || serial == -ETIMEDOUT);
    }
}

static void take_raw(struct hammer *hammer) {
    int byte = jobserver_acquire_raw(hammer->client, -1);
    CHECK(byte >= 'a' && byte < 'a' + LIMIT);
    work(hammer, 1);
    CHECK_EQUAL(jobserver_release_raw(hammer->client, byte), 0);
}

static void take_many(struct hammer *hammer, jobserver_batch *batch) {
    int count = jobserver_batch_acquire(batch, 1, -1);
    CHECK(count > 0);
    work(hammer, count);
    CHECK_EQUAL(jobserver_batch_release(batch), 0);
}

static void hammer_here(struct hammer *hammer) {
    jobserver_token *token = cell(hammer->client);
    jobserver_batch *batch = jobserver_batch_new(hammer->client, 2);
    for (int i = 0; i < scaled(400); i++) {
        take_one(hammer, token, -1);
        take_one(hammer, token, 0);
        take_one(hammer, token, MILLISECOND / 10);
        take_raw(hammer);
        take_many(hammer, batch);
    }
    jobserver_batch_free(batch);
    jobserver_token_free(token);
}

static struct hammer make_hammer(void) {
    struct hammer hammer = {.at_work = shared_memory(2 * sizeof(atomic_int))};
    hammer.overlapped = hammer.at_work + 1;
    make_pipe(hammer.ends, "");
    return hammer;
}

static void check_whole(struct hammer *hammer) {
    char bytes[LIMIT + 1];
    int seen = 0;
    CHECK_EQUAL(in_pipe(hammer->ends[0]), LIMIT);
    CHECK_EQUAL(read(hammer->ends[0], bytes, LIMIT), LIMIT);
    for (int i = 0; i < LIMIT; i++) {
        seen |= 1 << (bytes[i] - 'a');
    }
    CHECK_EQUAL(seen, (1 << LIMIT) - 1);
    CHECK(*hammer->overlapped > 0);
    close(hammer->ends[0]);
    close(hammer->ends[1]);
}

static void *hammer_in_thread(void *argument) {
    hammer_here(argument);
    return NULL;
}

/* The portable core needs a pipe that does not block to try; Linux's does not. */
static jobserver_client *join_hammer(struct hammer *hammer) {
    if (!ON_LINUX) {
        set_nonblocking(hammer->ends[0]);
    }
    return join(hammer->ends[0], hammer->ends[1]);
}

static void test_threads_that_hammer(void) {
    struct hammer hammer = make_hammer();
    hammer.client = join_hammer(&hammer);
    CHECK_EQUAL(write(hammer.ends[1], "abc", LIMIT), LIMIT);
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, hammer_in_thread, &hammer), 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    jobserver_client_free(hammer.client);
    check_whole(&hammer);
}

static void hammer_in_process(void *argument) {
    struct hammer *hammer = argument;
    hammer->client = join_hammer(hammer);
    hammer_here(hammer);
    jobserver_client_free(hammer->client);
}

static void test_processes_that_hammer(void) {
    struct hammer hammer = make_hammer();
    pid_t children[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        children[i] = start(hammer_in_process, &hammer);
    }
    CHECK_EQUAL(write(hammer.ends[1], "abc", LIMIT), LIMIT);
    for (int i = 0; i < WORKERS; i++) {
        finish(children[i]);
    }
    check_whole(&hammer);
}

struct cycle {
    jobserver_token *token;
    _Atomic int64_t serial;
    atomic_bool stop;
    atomic_int released;
};

static void *release_what_was(void *argument) {
    struct cycle *cycle = argument;
    while (!cycle->stop) {
        int64_t serial = cycle->serial;
        CHECK_EQUAL(jobserver_token_release(cycle->token, serial), 1);
        CHECK_EQUAL(jobserver_token_drop(cycle->token, serial), -ENOENT);
    }
    return NULL;
}

/* A release that comes late, from two other threads, never frees what the cell holds now. */
static void test_late_releases(void) {
    jobserver_client *client = own_pipe(1);
    struct cycle cycle = {.token = cell(client)};
    cycle.serial = acquired(cycle.token);
    CHECK_EQUAL(jobserver_token_release(cycle.token, cycle.serial), 0);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, release_what_was, &cycle), 0);
    }
    for (int i = 0; i < scaled(20000); i++) {
        int64_t serial = jobserver_token_acquire(cycle.token, 0);
        CHECK(serial > 0);
        CHECK_EQUAL(jobserver_client_available(client), 0);
        CHECK_EQUAL(jobserver_token_release(cycle.token, serial), 0);
        cycle.serial = serial;
    }
    cycle.stop = true;
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQUAL(jobserver_client_available(client), 1);
    jobserver_token_free(cycle.token);
    jobserver_client_free(client);
}

static void *release_it_too(void *argument) {
    struct cycle *cycle = argument;
    for (int64_t last = 0; !cycle->stop;) {
        int64_t serial = cycle->serial;
        if (serial != last && jobserver_token_release(cycle->token, serial) == 0) {
            cycle->released++;
        }
        last = serial;
        sched_yield();
    }
    return NULL;
}

/* Of several releases of one taking, one gives the token back. */
static void test_releases_that_race(void) {
    jobserver_client *client = own_pipe(1);
    struct cycle cycle = {.token = cell(client)};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, release_it_too, &cycle), 0);
    }
    int rounds = scaled(1000);
    for (int i = 0; i < rounds; i++) {
        cycle.serial = acquired(cycle.token);
        if (jobserver_token_release(cycle.token, cycle.serial) == 0) {
            cycle.released++;
        }
        WAIT_WHILE(cycle.released < i + 1);
        CHECK_EQUAL(jobserver_client_available(client), 1);
    }
    cycle.stop = true;
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQUAL(cycle.released, rounds);
    jobserver_token_free(cycle.token);
    jobserver_client_free(client);
}

static void *make_clients(void *argument) {
    int *ends = argument;
    for (int i = 0; i < scaled(100); i++) {
        jobserver_client *own = own_pipe(2), *joined = join(ends[0], ends[1]);
        CHECK_EQUAL(jobserver_client_available(own), 2);
        jobserver_client_inherit(joined);
        jobserver_token *token = cell(joined);
        acquired(token);
        CHECK_EQUAL(jobserver_client_close(joined), 0);
        jobserver_client_free(joined);
        jobserver_token_free(token);
        jobserver_client_free(own);
    }
    return NULL;
}

static void test_clients_made_in_threads(void) {
    int ends[2];
    make_pipe(ends, "abcd");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, make_clients, ends), 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQUAL(in_pipe(ends[0]), 4);
    close(ends[0]);
    close(ends[1]);
}

static void *use_until_closed(void *argument) {
    jobserver_client *client = argument;
    jobserver_token *token = cell(client);
    int64_t serial = 0;
    for (int i = 0; i < scaled(200) && serial != JOBSERVER_CLOSED; i++) {
        serial = jobserver_token_acquire(token, MILLISECOND / 10);
        CHECK(serial > 0 || serial == -ETIMEDOUT || serial == JOBSERVER_CLOSED);
        if (serial > 0) {
            CHECK_EQUAL(jobserver_token_release(token, serial), 0);
        }
    }
    jobserver_token_free(token);
    return NULL;
}

/* Closing fails while others are inside, and else it is final: nobody uses a descriptor that was closed. */
static void test_closing_while_others_use(void) {
    for (int round = 0; round < scaled(50); round++) {
        jobserver_client *client = own_pipe(2);
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) {
            CHECK_EQUAL(pthread_create(&threads[i], NULL, use_until_closed, client), 0);
        }
        int result;
        while ((result = jobserver_client_close(client)) == -EBUSY) {
            sched_yield();
        }
        CHECK_EQUAL(result, 0);
        for (int i = 0; i < 4; i++) {
            CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
        }
        jobserver_client_free(client);
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"threads_that_hammer", test_threads_that_hammer},
        {"processes_that_hammer", test_processes_that_hammer},
        {"late_releases", test_late_releases},
        {"releases_that_race", test_releases_that_race},
        {"clients_made_in_threads", test_clients_made_in_threads},
        {"closing_while_others_use", test_closing_while_others_use},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
