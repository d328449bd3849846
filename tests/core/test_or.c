/* Waiting for a token or for something else: neither is lost, and no wake-up is. */
#include "check.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "pools.h"

static jobserver_event *new_event(void) {
    jobserver_event *event;
    CHECK_EQUAL(jobserver_event_new(&event), 0);
    return event;
}

/* Waits without a limit of time for a token or an event. */
static int64_t acquire_or(jobserver_token *token, const jobserver_event *event) {
    intptr_t other = jobserver_event_waitable(event);
    return jobserver_token_acquire_or(token, -1, &other, 1);
}

static void test_the_token_or_the_event(void) {
    for (enum pool_kind kind = 0; kind < POOL_KINDS; kind++) {
        struct pool pool = open_pool(kind);
        jobserver_token *cells[POOL_TOKENS + 1];
        jobserver_event *event = new_event();
        jobserver_event_set(event);
        if (can_try(&pool)) {
            for (int i = 0; i < POOL_TOKENS; i++) { /* a token that is there goes before the event */
                cells[i] = cell(pool.client);
                CHECK(acquire_or(cells[i], event) > 0);
            }
            cells[POOL_TOKENS] = cell(pool.client);
            CHECK_EQUAL(acquire_or(cells[POOL_TOKENS], event), JOBSERVER_READY);
            CHECK_EQUAL(acquire_or(cells[POOL_TOKENS], event), JOBSERVER_READY); /* it stays set */
            for (int i = 0; i <= POOL_TOKENS; i++) {
                jobserver_token_free(cells[i]);
            }
            serve(&pool, POOL_TOKENS);
        }
        jobserver_event_free(event);
        close_pool(&pool);
    }
}

static void test_limits_of_time(void) {
    jobserver_client *client = own_pipe(0);
    jobserver_token *token = cell(client);
    jobserver_event *event = new_event();
    intptr_t other = jobserver_event_waitable(event);
    CHECK_EQUAL(jobserver_token_acquire_or(token, 0, &other, 1), -EAGAIN);
    CHECK_EQUAL(jobserver_token_acquire_or(token, MILLISECOND, &other, 1), -ETIMEDOUT);
    intptr_t closed = 1000000;
    CHECK(jobserver_token_acquire_or(token, 1000 * MILLISECOND, &closed, 1) < 0);
    CHECK_EQUAL(jobserver_token_acquire_or(token, MILLISECOND, &other, 1), -ETIMEDOUT); /* nothing stayed behind */
    jobserver_event_set(event);
    jobserver_event_set(event);
    CHECK_EQUAL(jobserver_event_wait(event), 0);
    CHECK_EQUAL(jobserver_token_acquire_or(token, 0, &other, 1), -EAGAIN);
    jobserver_event_clear(event);
    CHECK_EQUAL(jobserver_token_acquire_or(token, MILLISECOND, &other, 1), -ETIMEDOUT);
    jobserver_event_free(event);
    jobserver_token_free(token);
    jobserver_client_free(client);
}

enum { MANY = 40 };

static void test_many_others(void) {
    jobserver_client *client = own_pipe(0);
    jobserver_token *token = cell(client);
    jobserver_event *events[MANY];
    intptr_t others[MANY + 1];
    for (int i = 0; i < MANY; i++) {
        events[i] = new_event();
        others[i] = jobserver_event_waitable(events[i]);
    }
    others[MANY] = others[0]; /* named twice */
    CHECK_EQUAL(jobserver_token_acquire_or(token, MILLISECOND, others, MANY + 1), -ETIMEDOUT);
    for (int i = 0; i < MANY; i++) {
        jobserver_event_set(events[i]);
        CHECK_EQUAL(jobserver_token_acquire_or(token, -1, others, MANY + 1), JOBSERVER_READY);
    }
    for (int i = 0; i < MANY; i++) {
        jobserver_event_free(events[i]);
    }
    jobserver_token_free(token);
    jobserver_client_free(client);
}

struct racer {
    jobserver_client *client;
    jobserver_event *event;
    atomic_int got;
    atomic_int left;
    _Atomic pid_t thread;
};

/* Leaves when the event comes first, and takes one token if that does. */
static void *race(void *argument) {
    struct racer *racer = argument;
    jobserver_token *token = cell(racer->client);
    racer->thread = this_thread();
    int64_t result = acquire_or(token, racer->event);
    CHECK(result > 0 || result == JOBSERVER_READY);
    racer->got += result > 0 ? 1 : 0;
    racer->left += 1;
    if (result > 0) {
        jobserver_token_drop(token, result);
    }
    jobserver_token_free(token);
    return NULL;
}

static void *set_event(void *argument) {
    jobserver_event_set(((struct racer *)argument)->event);
    return NULL;
}

/*
 * One waiter is first in the queue and may leave for its event at the moment when the only token comes; another waits
 * behind it for nothing else. One of them must get the token: it never lies free beside a sleeper.
 */
static void test_leaving_loses_no_wake_up(void) {
    for (int round = 0; round < scaled(3000); round++) {
        jobserver_client *client = own_pipe(1);
        jobserver_token *only = cell(client);
        acquired(only);
        struct racer first = {.client = client, .event = new_event()};
        struct racer second = {.client = client, .event = new_event()};
        pthread_t threads[3];
        CHECK_EQUAL(pthread_create(&threads[0], NULL, race, &first), 0);
        WAIT_WHILE(first.thread == 0);
        wait_until_asleep(getpid(), first.thread);
        CHECK_EQUAL(pthread_create(&threads[1], NULL, race, &second), 0);
        WAIT_WHILE(second.thread == 0);
        wait_until_asleep(getpid(), second.thread);
        CHECK_EQUAL(pthread_create(&threads[2], NULL, set_event, &first), 0);
        jobserver_token_free(only);
        CHECK_EQUAL(pthread_join(threads[2], NULL), 0);
        CHECK_EQUAL(pthread_join(threads[0], NULL), 0);
        WAIT_WHILE(first.got + second.got == 0);
        jobserver_event_set(second.event);
        CHECK_EQUAL(pthread_join(threads[1], NULL), 0);
        CHECK_EQUAL(first.got + second.got, 1);
        CHECK_EQUAL(jobserver_release_raw(client, '+'), 0);
        jobserver_event_free(first.event);
        jobserver_event_free(second.event);
        jobserver_client_free(client);
    }
}

/* A forked child that sets an event must not wake its parent. */
static void set_in_child(void *argument) {
    jobserver_event_set(argument);
    jobserver_event_clear(argument);
}

static void test_a_child_sets_nothing(void) {
    jobserver_event *event = new_event();
    finish(start(set_in_child, event));
    CHECK_EQUAL(in_pipe((int)jobserver_event_waitable(event)), 0);
    jobserver_event_set(event);
    finish(start(set_in_child, event));
    CHECK_EQUAL(in_pipe((int)jobserver_event_waitable(event)), 1);
    jobserver_event_free(event);
}

struct locker {
    jobserver_batch *batch;
    jobserver_event *event;
    _Atomic pid_t thread;
    int result;
};

static void *acquire_two(void *argument) {
    struct locker *locker = argument;
    intptr_t other = jobserver_event_waitable(locker->event);
    locker->thread = this_thread();
    locker->result = jobserver_batch_acquire_or(locker->batch, 2, -1, &other, 1);
    return NULL;
}

/* Two that want two of two tokens: the one that has the lock, and the one that waits for it, can both be called off. */
static void test_calling_off_a_batch(void) {
    int before = open_descriptors();
    for (int round = 0; round < scaled(200); round++) {
        jobserver_client *client = round % 2 == 0 ? own_pipe(2) : NULL;
        if (client == NULL || !ON_LINUX) {
            if (client != NULL) {
                jobserver_client_free(client);
            }
            CHECK_EQUAL(jobserver_client_create_private_fifo(scratch_directory(), 2, &client), 0);
        }
        jobserver_token *token = cell(client);
        acquired(token);
        struct locker lockers[2];
        pthread_t threads[2];
        for (int i = 0; i < 2; i++) {
            lockers[i] = (struct locker){.batch = jobserver_batch_new(client, 2), .event = new_event()};
            CHECK_EQUAL(pthread_create(&threads[i], NULL, acquire_two, &lockers[i]), 0);
            WAIT_WHILE(lockers[i].thread == 0);
            wait_until_asleep(getpid(), lockers[i].thread);
        }
        int first = round / 2 % 2;
        for (int i = 0; i < 2; i++) {
            struct locker *locker = &lockers[i == 0 ? first : 1 - first];
            jobserver_event_set(locker->event);
            CHECK_EQUAL(pthread_join(threads[locker - lockers], NULL), 0);
            CHECK_EQUAL(locker->result, JOBSERVER_READY);
            jobserver_event_clear(locker->event);
            jobserver_batch_release(locker->batch);
        }
        jobserver_token_free(token);
        for (int i = 0; i < 2; i++) { /* the pool is whole and open to all again */
            CHECK_EQUAL(jobserver_batch_acquire(lockers[i].batch, 2, -1), 2);
            jobserver_batch_free(lockers[i].batch);
            jobserver_event_free(lockers[i].event);
        }
        jobserver_client_free(client);
    }
    WAIT_WHILE(open_descriptors() != before); /* of threads that still have to see that nobody wants their lock */
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"the_token_or_the_event", test_the_token_or_the_event},
        {"limits_of_time", test_limits_of_time},
        {"many_others", test_many_others},
        {"leaving_loses_no_wake_up", test_leaving_loses_no_wake_up},
        {"a_child_sets_nothing", test_a_child_sets_nothing},
        {"calling_off_a_batch", test_calling_off_a_batch},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
