/* A forked child holds nothing of its parent's, disturbs nobody, and can use the clients that it finds. */
#include "check.h"
#include "pools.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/* One of everything that can be held. */
struct holdings {
    jobserver_client *client;
    jobserver_token *token;
    jobserver_token *implicit;
    jobserver_batch *batch;
    int64_t serial;
    int64_t implicit_serial;
};

static void hold_nothing(void *argument) {
    struct holdings *held = argument;
    CHECK_EQUAL(jobserver_token_release(held->token, held->serial), 1);
    CHECK_EQUAL(jobserver_token_release(held->implicit, held->implicit_serial), 1);
    CHECK_EQUAL(jobserver_token_drop(held->token, held->serial), -ENOENT);
    CHECK_EQUAL(jobserver_batch_release(held->batch), 1);
    CHECK_EQUAL(jobserver_release_raw(held->client, 'd'), JOBSERVER_OVER_RELEASE);
    CHECK_EQUAL(jobserver_release_raw(held->client, -1), JOBSERVER_OVER_RELEASE);
    jobserver_token *mine = cell(held->client);
    CHECK_EQUAL(jobserver_token_acquire_implicit(mine), -EAGAIN);
    jobserver_client_inherit(held->client); /* a fork is not what a jobserver starts */
    CHECK_EQUAL(jobserver_token_acquire_implicit(mine), -EAGAIN);
    jobserver_token_free(mine);
}

static void free_all(void *argument) {
    struct holdings *held = argument;
    jobserver_token_free(held->token);
    jobserver_token_free(held->implicit);
    jobserver_batch_free(held->batch);
    CHECK_EQUAL(jobserver_client_close(held->client), 0);
    jobserver_client_free(held->client);
}

/* The last token is taken, given back, and taken again, in the parent's cells too. */
static void use(void *argument) {
    struct holdings *held = argument;
    int64_t serial = acquired(held->token);
    CHECK(serial > 0);
    CHECK_EQUAL(jobserver_client_available(held->client), 0);
    CHECK_EQUAL(jobserver_token_release(held->token, serial), 0);
    CHECK_EQUAL(jobserver_batch_acquire(held->batch, 1, -1), 1);
    CHECK_EQUAL(jobserver_batch_release(held->batch), 0);
    CHECK_EQUAL(jobserver_acquire_raw(held->client, -1), 'e');
    CHECK_EQUAL(jobserver_release_raw(held->client, 'e'), 0);
    acquired(held->implicit); /* and exit() gives this one back */
}

static void nothing(void *unused) {
    (void)unused;
}

static void test_a_child_holds_nothing(void) {
    int ends[2];
    make_pipe(ends, "abcde");
    struct holdings held = {.client = join(ends[0], ends[1])};
    jobserver_client_inherit(held.client);
    held.token = cell(held.client);
    held.implicit = cell(held.client);
    held.batch = jobserver_batch_new(held.client, 2);
    held.serial = acquired(held.token);
    held.implicit_serial = jobserver_token_acquire_implicit(held.implicit);
    CHECK(held.implicit_serial > 0);
    CHECK_EQUAL(jobserver_batch_acquire(held.batch, 1, -1), 2);
    CHECK_EQUAL(jobserver_acquire_raw(held.client, -1), 'd');
    void (*children[])(void *) = {nothing, hold_nothing, free_all, use};
    for (size_t i = 0; i < sizeof children / sizeof *children; i++) {
        finish(start(children[i], &held));
        CHECK_EQUAL(in_pipe(ends[0]), 1);
    }
    CHECK_EQUAL(jobserver_token_release(held.token, held.serial), 0);
    CHECK_EQUAL(jobserver_token_release(held.implicit, held.implicit_serial), 0);
    CHECK_EQUAL(jobserver_batch_release(held.batch), 0);
    CHECK_EQUAL(jobserver_release_raw(held.client, 'd'), 0);
    CHECK_EQUAL(in_pipe(ends[0]), 5);
    free_all(&held);
    close(ends[0]);
    close(ends[1]);
}

/* Threads that sleep in each kind of wait. */
enum { SLEEPERS = 12 };

struct sleeper {
    jobserver_client *client;
    pthread_t thread;
    _Atomic pid_t number;
    int kind;
    bool woken;
};

static void *sleep_for_token(void *argument) {
    struct sleeper *sleeper = argument;
    jobserver_token *token = cell(sleeper->client);
    jobserver_batch *batch = jobserver_batch_new(sleeper->client, 1);
    int64_t timeout = sleeper->kind == 1 ? 1000000 * MILLISECOND : -1;
    sleeper->number = this_thread();
    if (sleeper->kind == 2) {
        CHECK_EQUAL(jobserver_batch_acquire(batch, 1, -1), 1);
    } else {
        CHECK(jobserver_token_acquire(token, timeout) > 0);
    }
    sleeper->woken = true;
    jobserver_batch_free(batch);
    jobserver_token_free(token);
    return NULL;
}

static void start_sleepers(struct sleeper *sleepers, jobserver_client *client) {
    for (int i = 0; i < SLEEPERS; i++) {
        sleepers[i] = (struct sleeper){.client = client, .kind = i % 3};
        CHECK_EQUAL(pthread_create(&sleepers[i].thread, NULL, sleep_for_token, &sleepers[i]), 0);
    }
    for (int i = 0; i < SLEEPERS; i++) {
        WAIT_WHILE(sleepers[i].number == 0);
        wait_until_asleep(getpid(), sleepers[i].number);
    }
}

struct child_of_sleepers {
    jobserver_client *client;
    int descriptors;
};

/* The epolls of the parent's threads are not left open, and the child's own waits are its own. */
static void wait_in_child(void *argument) {
    struct child_of_sleepers *parent = argument;
    CHECK_EQUAL(open_descriptors(), parent->descriptors);
    jobserver_token *token = cell(parent->client);
    CHECK_EQUAL(jobserver_token_acquire(token, MILLISECOND), -ETIMEDOUT);
    CHECK_EQUAL(jobserver_client_close(parent->client), 0);
    jobserver_token_free(token);
    jobserver_client_free(parent->client);
}

static void test_children_of_a_process_whose_threads_sleep(void) {
    jobserver_client *client = own_pipe(0);
    int ends[2];
    CHECK_EQUAL(jobserver_client_descriptors(client, ends), 0);
    struct child_of_sleepers parent = {.client = client, .descriptors = open_descriptors()};
    struct sleeper sleepers[SLEEPERS];
    start_sleepers(sleepers, client);
    for (int i = 0; i < 3; i++) {
        finish(start(wait_in_child, &parent));
    }
    CHECK_EQUAL(write(ends[1], "++", 2), 2);
    for (int i = 0; i < SLEEPERS; i++) {
        CHECK_EQUAL(pthread_join(sleepers[i].thread, NULL), 0);
        CHECK(sleepers[i].woken);
    }
    CHECK_EQUAL(jobserver_client_available(client), 2);
    jobserver_client_free(client);
}

static atomic_bool stop;

static void *take_and_give_back(void *argument) {
    jobserver_client *client = argument;
    jobserver_token *token = cell(client);
    jobserver_batch *batch = jobserver_batch_new(client, 2);
    while (!stop) {
        int64_t serial = jobserver_token_acquire(token, MILLISECOND);
        CHECK(serial > 0 ? jobserver_token_release(token, serial) == 0 : serial == -ETIMEDOUT);
        if (jobserver_batch_acquire(batch, 1, MILLISECOND) > 0) {
            CHECK_EQUAL(jobserver_batch_release(batch), 0);
        }
        jobserver_client *own = own_pipe(1);
        CHECK_EQUAL(jobserver_client_available(own), 1);
        jobserver_client_free(own);
    }
    jobserver_batch_free(batch);
    jobserver_token_free(token);
    return NULL;
}

static void take_in_child(void *argument) {
    jobserver_client *client = argument;
    jobserver_token *token = cell(client);
    for (int i = 0; i < 3; i++) {
        int64_t serial = acquired(token);
        CHECK_EQUAL(jobserver_token_release(token, serial), 0);
    }
    acquired(token); /* given back by exit() */
}

static void test_forks_in_the_middle_of_everything(void) {
    int ends[2];
    make_pipe(ends, "abcd");
    CHECK_EQUAL(jobserver_check_descriptor(ends[0], 0), 0);
    jobserver_client *client = NULL;
    CHECK_EQUAL(jobserver_client_create_private_fifo(scratch_directory(), 4, &client), 0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, take_and_give_back, client), 0);
    }
    for (int i = 0; i < scaled(100); i++) {
        pid_t one = start(take_in_child, client), other = start(take_in_child, client);
        finish(one);
        finish(other);
    }
    stop = true;
    for (int i = 0; i < 4; i++) {
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQUAL(jobserver_client_available(client), 4);
    jobserver_client_free(client);
    close(ends[0]);
    close(ends[1]);
}

static void settle_in_child(void *argument) {
    jobserver_client *client = argument;
    jobserver_token *token = cell(client);
    acquired(token); /* nothing to be told: it is the parent's */
    int stranded = 1;
    CHECK_EQUAL(jobserver_client_settle(client, &stranded), 0);
    CHECK_EQUAL(stranded, 0);
    jobserver_client_free(client);
}

static void test_stranded_tokens_are_the_parents(void) {
    int ends[2];
    make_pipe(ends, "a");
    jobserver_client *client = join(ends[0], ends[1]);
    jobserver_token *token = cell(client);
    acquired(token);
    fill_pipe(ends[1]);
    jobserver_token_free(token);
    int full = in_pipe(ends[0]);
    pid_t child = start(settle_in_child, client);
    finish(child);
    CHECK_EQUAL(in_pipe(ends[0]), full - 1); /* which could not be given back */
    drain_pipe(ends[0], full - 1);
    int stranded = 1;
    CHECK_EQUAL(jobserver_client_settle(client, &stranded), -EAGAIN);
    CHECK_EQUAL(stranded, 0);
    CHECK_EQUAL(in_pipe(ends[0]), 1);
    jobserver_client_free(client);
    close(ends[0]);
    close(ends[1]);
}

static jobserver_lease_report report_of(jobserver_lease *lease) {
    jobserver_lease_report report;
    CHECK_EQUAL(jobserver_lease_describe(lease, &report), 0);
    return report;
}

struct family {
    jobserver_broker *broker;
    jobserver_lease *leases[3];
    jobserver_lease *observer;
};

/* A child frees what it inherits in another order than its parent, and asks in between. */
static void free_in_child(void *argument) {
    struct family *family = argument;
    jobserver_broker_free(family->broker);
    jobserver_lease_free(family->leases[0]);
    CHECK_EQUAL(jobserver_lease_start(family->leases[2], -1), JOBSERVER_CLOSED);
    jobserver_lease_free(family->leases[1]);
    CHECK_EQUAL(report_of(family->leases[2]).queued_before, 0);
    CHECK_EQUAL(report_of(family->observer).state, JOBSERVER_LEASE_ENDED);
    jobserver_lease_forget(family->observer);
    jobserver_lease_free(family->leases[2]);
}

static void test_a_forked_child_frees_leases_in_any_order(void) {
    struct family family;
    jobserver_lease_terms terms = {.style = JOBSERVER_LEASE_FIFO, .weight = 1.0, .orphan_timeout = -1};
    CHECK_EQUAL(jobserver_broker_create(scratch_directory(), 1, &family.broker), 0);
    for (int number = 0; number < 3; number++) {
        CHECK_EQUAL(jobserver_lease_open(family.broker, &terms, &family.leases[number]), 0);
        CHECK_EQUAL(jobserver_lease_start(family.leases[number], 0), number == 0 ? 0 : -ETIMEDOUT);
    }
    family.observer = jobserver_lease_observe(family.leases[0]);
    finish(start(free_in_child, &family));
    CHECK_EQUAL(report_of(family.leases[2]).queued_before, 1);
    for (int number = 0; number < 3; number++) {
        jobserver_lease_free(family.leases[number]);
    }
    jobserver_lease_forget(family.observer);
    jobserver_broker_free(family.broker);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"a_child_holds_nothing", test_a_child_holds_nothing},
        {"children_of_a_process_whose_threads_sleep", test_children_of_a_process_whose_threads_sleep},
        {"forks_in_the_middle_of_everything", test_forks_in_the_middle_of_everything},
        {"stranded_tokens_are_the_parents", test_stranded_tokens_are_the_parents},
        {"a_forked_child_frees_leases_in_any_order", test_a_forked_child_frees_leases_in_any_order},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
