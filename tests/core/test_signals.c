/* A signal ends every wait at once, and none loses a token. */
#include "check.h"
#include "pools.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/time.h>
#include <unistd.h>

#define FOR_EVER (INT64_C(1000000000) * MILLISECOND)

static atomic_int signals;

static void count(int number) {
    (void)number;
    signals++;
}

/* Not SA_RESTART: as Python does it, so that its handlers run. */
static void handle(int number) {
    struct sigaction action = {.sa_handler = count};
    CHECK_EQUAL(sigaction(number, &action, NULL), 0);
}

enum wait {
    TOKEN,
    TOKEN_WITH_TIMEOUT,
    RAW,
    RAW_WITH_TIMEOUT,
    BATCH,
    BATCH_WITH_TIMEOUT,
    LOCK,
    LOCK_WITH_TIMEOUT,
    WAITS
};

struct waiter {
    jobserver_client *client;
    enum wait wait;
    _Atomic pid_t thread;
    _Atomic int64_t result;
};

static void *wait_for_signal(void *argument) {
    struct waiter *waiter = argument;
    jobserver_token *token = cell(waiter->client);
    jobserver_batch *batch = jobserver_batch_new(waiter->client, 2);
    int64_t timeout = waiter->wait % 2 == 0 ? -1 : FOR_EVER;
    waiter->thread = this_thread();
    if (waiter->wait <= TOKEN_WITH_TIMEOUT) {
        waiter->result = jobserver_token_acquire(token, timeout);
    } else if (waiter->wait <= RAW_WITH_TIMEOUT) {
        waiter->result = jobserver_acquire_raw(waiter->client, timeout);
    } else {
        waiter->result = jobserver_batch_acquire(batch, waiter->wait >= LOCK ? 2 : 1, timeout);
    }
    CHECK_EQUAL(jobserver_batch_release(batch), 1); /* it holds nothing */
    jobserver_batch_free(batch);
    jobserver_token_free(token);
    return NULL;
}

static void interrupt(jobserver_client *client, enum wait wait) {
    struct waiter waiter = {.client = client, .wait = wait};
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, wait_for_signal, &waiter), 0);
    WAIT_WHILE(waiter.thread == 0);
    wait_until_asleep(getpid(), waiter.thread);
    CHECK_EQUAL(pthread_kill(thread, SIGUSR1), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(waiter.result, -EINTR);
}

static void test_a_signal_ends_every_wait(void) {
    handle(SIGUSR1);
    for (enum pool_kind kind = OWN_PIPE; kind < POOL_KINDS; kind++) {
        struct pool pool = open_pool(kind);
        int bytes[POOL_TOKENS];
        for (int i = 0; i < POOL_TOKENS; i++) {
            bytes[i] = jobserver_acquire_raw(pool.client, -1);
        }
        for (enum wait wait = TOKEN; wait < LOCK; wait++) {
            if (can_try(&pool) || wait % 2 == 0) {
                interrupt(pool.client, wait);
            }
        }
        for (int i = 0; i < POOL_TOKENS; i++) {
            CHECK_EQUAL(jobserver_release_raw(pool.client, bytes[i]), 0);
        }
        serve(&pool, POOL_TOKENS);
        close_pool(&pool);
    }
}

/* Another process (as it were) has locked the pool, to wait with tokens in its hands. */
static void test_a_signal_ends_the_wait_for_the_lock(void) {
    handle(SIGUSR1);
    struct pool pool = open_pool(OWN_FIFO);
    int before = open_descriptors();
    char path[600];
    CHECK_EQUAL(jobserver_client_path(pool.client, path, sizeof path), 0);
    int other = open(path, O_RDONLY | O_NONBLOCK);
    CHECK_EQUAL(flock(other, LOCK_EX), 0);
    interrupt(pool.client, LOCK);
    interrupt(pool.client, LOCK_WITH_TIMEOUT);
    CHECK_EQUAL(close(other), 0);
    WAIT_WHILE(open_descriptors() != before); /* a thread still has to see that nobody wants its lock any more */
    jobserver_batch *batch = jobserver_batch_new(pool.client, 3);
    CHECK_EQUAL(jobserver_batch_acquire(batch, 3, 0), 3);
    jobserver_batch_free(batch);
    close_pool(&pool);
}

static void take_and_give_back(void *argument) {
    struct pool *pool = argument;
    jobserver_token *token = cell(pool->client);
    for (int i = 0; i < scaled(2000); i++) {
        int64_t serial = acquired(token);
        sched_yield();
        CHECK_EQUAL(jobserver_token_release(token, serial), 0);
    }
}

static int wanted; /* signals before the storm is over */

static void take_one(jobserver_client *client, jobserver_token *token, int64_t timeout) {
    int64_t serial = jobserver_token_acquire(token, timeout);
    CHECK(serial > 0 || serial == -EINTR || serial == -ETIMEDOUT);
    if (serial > 0) {
        CHECK_EQUAL(jobserver_token_release(token, serial), 0);
    }
    int byte = jobserver_acquire_raw(client, timeout);
    CHECK(byte >= 0 || byte == -EINTR || byte == -ETIMEDOUT);
    if (byte >= 0) {
        CHECK_EQUAL(jobserver_release_raw(client, byte), 0);
    }
}

/* With fewer tokens than takers, so that there is always somebody asleep. */
static void storm(struct pool *pool) {
    jobserver_token *token = cell(pool->client);
    jobserver_batch *batch = jobserver_batch_new(pool->client, 3);
    while (signals < wanted) {
        take_one(pool->client, token, -1);
        take_one(pool->client, token, can_try(pool) ? MILLISECOND : -1);
        int count = jobserver_batch_acquire(batch, 2, -1);
        CHECK(count > 0 || count == -EINTR || count == JOBSERVER_UNSUPPORTED);
        if (signals % 2 == 0) {
            CHECK(jobserver_batch_release(batch) >= 0); /* else it goes on with what it has */
        } else if (count > 0) {
            CHECK_EQUAL(jobserver_batch_release(batch), 0);
        }
    }
    jobserver_batch_free(batch);
    jobserver_token_free(token);
}

static void storm_on(enum pool_kind kind, int number) {
    struct pool pool = open_pool(kind);
    signals = 0;
    wanted = number;
    handle(SIGALRM);
    pid_t others[2] = {start(take_and_give_back, &pool), start(take_and_give_back, &pool)};
    struct itimerval often = {.it_interval = {.tv_usec = 40}, .it_value = {.tv_usec = 40}}, never = {.it_value = {0}};
    CHECK_EQUAL(setitimer(ITIMER_REAL, &often, NULL), 0);
    storm(&pool);
    CHECK_EQUAL(setitimer(ITIMER_REAL, &never, NULL), 0);
    finish(others[0]);
    finish(others[1]);
    close_pool(&pool);
}

static void test_a_storm_of_signals(void) {
    storm_on(INHERITED_PIPE, scaled(14000));
    storm_on(JOINED_FIFO, scaled(6000));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"a_signal_ends_every_wait", test_a_signal_ends_every_wait},
        {"a_signal_ends_the_wait_for_the_lock", test_a_signal_ends_the_wait_for_the_lock},
        {"a_storm_of_signals", test_a_storm_of_signals},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
