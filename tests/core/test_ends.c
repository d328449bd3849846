/* Brokers, leases and their observers may be freed in any order; what is freed is asked for nothing, what is not answers. */
#include "check.h"

#include <dirent.h>
#include <pthread.h>

#define FOR_EVER (-1)

static jobserver_broker *broker_of(int limit) {
    jobserver_broker *broker;
    CHECK_EQUAL(jobserver_broker_create(scratch_directory(), limit, &broker), 0);
    return broker;
}

static jobserver_lease *lease_of(jobserver_broker *broker, int style) {
    jobserver_lease_terms terms = {.style = style, .weight = 1.0, .orphan_timeout = FOR_EVER};
    jobserver_lease *lease;
    CHECK_EQUAL(jobserver_lease_open(broker, &terms, &lease), 0);
    return lease;
}

static jobserver_lease_report report_of(jobserver_lease *lease) {
    jobserver_lease_report report;
    CHECK_EQUAL(jobserver_lease_describe(lease, &report), 0);
    return report;
}

/* How many entries the scratch directory has: a broker's directory is one. */
static int directories(void) {
    DIR *directory = opendir(scratch_directory());
    int count = -2; /* . and .. */
    CHECK(directory != NULL);
    while (readdir(directory) != NULL) {
        count++;
    }
    CHECK_EQUAL(closedir(directory), 0);
    return count;
}

static void *serve(void *broker) {
    CHECK_EQUAL(jobserver_broker_serve(broker), 0);
    return NULL;
}

static void check_closed(jobserver_broker *broker) {
    jobserver_broker_report report;
    jobserver_lease_terms terms = {.weight = 1.0};
    jobserver_lease *lease;
    jobserver_event *event;
    CHECK_EQUAL(jobserver_broker_describe(broker, &report), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_broker_resize(broker, 2), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_broker_allow(broker, 1), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_broker_watch(broker), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_broker_lock(broker), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_broker_record(broker, 8), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_lease_open(broker, &terms, &lease), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_event_new(&event), 0);
    CHECK_EQUAL(jobserver_broker_rest(broker, event, 0), JOBSERVER_CLOSED);
    jobserver_event_free(event);
    CHECK_EQUAL(jobserver_broker_serve(broker), 0);
    jobserver_broker_stop(broker);
}

static void test_a_stopped_broker_keeps_nothing_and_still_answers(void) {
    int before = open_descriptors();
    jobserver_broker *broker = broker_of(2);
    CHECK_EQUAL(directories(), 1);
    jobserver_broker_stop(broker);
    CHECK_EQUAL(open_descriptors(), before);
    CHECK_EQUAL(directories(), 0);
    check_closed(broker);
    jobserver_broker_free(broker);
}

static void test_a_stopped_broker_takes_no_bridge(void) {
    jobserver_client *client = own_pipe(2);
    jobserver_broker *broker = broker_of(0);
    jobserver_broker_stop(broker);
    CHECK_EQUAL(jobserver_broker_bridge(broker, client), JOBSERVER_CLOSED);
    jobserver_broker_free(broker);
    CHECK_EQUAL(jobserver_client_available(client), 2);
    jobserver_client_free(client);
}

/* The journal can be read to its end, when the broker has nothing else any more. */
static void test_the_journal_stays_until_the_broker_is_freed(void) {
    jobserver_broker *broker = broker_of(3);
    jobserver_change changes[2];
    int64_t dropped;
    CHECK_EQUAL(jobserver_broker_record(broker, 8), 0);
    jobserver_broker_stop(broker);
    CHECK_EQUAL(jobserver_broker_changes(broker, changes, 2, &dropped), 1);
    CHECK_EQUAL(changes[0].slots, 3);
    jobserver_broker_free(broker);
}

/* With and without a serving thread: the last user of a broker closes its descriptors and frees its memory. */
static void free_broker_before_leases(bool served, int style) {
    pthread_t thread;
    jobserver_broker *broker = broker_of(2);
    if (served) {
        CHECK_EQUAL(pthread_create(&thread, NULL, serve, broker), 0);
    }
    jobserver_lease *never = lease_of(broker, style), *started = lease_of(broker, style);
    CHECK_EQUAL(jobserver_lease_start(started, 0), 0);
    jobserver_broker_stop(broker);
    if (served) {
        CHECK_EQUAL(pthread_join(thread, NULL), 0);
    }
    jobserver_broker_free(broker);
    CHECK_EQUAL(directories(), 1);
    CHECK_EQUAL(jobserver_lease_start(never, FOR_EVER), JOBSERVER_CLOSED);
    CHECK_EQUAL(report_of(started).slots, 1);
    CHECK_EQUAL(jobserver_lease_spawned(started, 0), 0);
    CHECK_EQUAL(jobserver_lease_wait(started, 0), JOBSERVER_CLOSED);
    jobserver_lease_free(never);
    CHECK_EQUAL(jobserver_lease_end(started), 0);
    CHECK_EQUAL(report_of(started).state, JOBSERVER_LEASE_ENDED);
    CHECK_EQUAL(directories(), 1);
    jobserver_lease_free(started);
    CHECK_EQUAL(directories(), 0);
}

static void test_leases_outlive_their_broker(void) {
    for (int served = 0; served < 2; served++) {
        free_broker_before_leases(served, JOBSERVER_LEASE_PIPE);
        free_broker_before_leases(served, JOBSERVER_LEASE_FIFO);
    }
}

/* Its owner frees a broker while a thread serves it: the thread is the last. */
static void test_a_serving_thread_outlives_its_broker(void) {
    for (int round = 0; round < scaled(200); round++) {
        pthread_t thread;
        jobserver_broker *broker = broker_of(2);
        jobserver_lease *lease = lease_of(broker, JOBSERVER_LEASE_FIFO);
        CHECK_EQUAL(pthread_create(&thread, NULL, serve, broker), 0);
        CHECK_EQUAL(jobserver_lease_start(lease, FOR_EVER), 0); /* so the thread has begun */
        if (round % 2 == 0) {
            jobserver_lease_free(lease);
            jobserver_broker_free(broker);
        } else {
            jobserver_broker_free(broker);
            jobserver_lease_free(lease);
        }
        CHECK_EQUAL(pthread_join(thread, NULL), 0);
        CHECK_EQUAL(directories(), 0);
    }
}

static void test_an_observer_has_the_last_report(void) {
    jobserver_broker *broker = broker_of(2);
    jobserver_lease *lease = lease_of(broker, JOBSERVER_LEASE_PIPE);
    CHECK_EQUAL(jobserver_lease_start(lease, 0), 0);
    jobserver_lease *observer = jobserver_lease_observe(lease), *other = jobserver_lease_observe(lease);
    CHECK_EQUAL(report_of(observer).slots, 1);
    jobserver_lease_forget(other);
    jobserver_lease_free(lease);
    CHECK_EQUAL(report_of(observer).state, JOBSERVER_LEASE_ENDED);
    CHECK_EQUAL(report_of(observer).peak, 1);
    jobserver_broker_report report;
    CHECK_EQUAL(jobserver_broker_describe(broker, &report), 0);
    CHECK_EQUAL(report.in_use, 0);
    jobserver_broker_free(broker);
    CHECK_EQUAL(report_of(observer).slots, 0);
    jobserver_lease_forget(observer);
}

static void test_an_observer_may_be_forgotten_first(void) {
    jobserver_broker *broker = broker_of(1);
    jobserver_lease *lease = lease_of(broker, JOBSERVER_LEASE_PIPE);
    jobserver_lease_forget(jobserver_lease_observe(lease));
    CHECK_EQUAL(jobserver_lease_start(lease, 0), 0);
    CHECK_EQUAL(report_of(lease).slots, 1);
    jobserver_lease_free(lease);
    jobserver_broker_free(broker);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"a_stopped_broker_keeps_nothing_and_still_answers", test_a_stopped_broker_keeps_nothing_and_still_answers},
        {"a_stopped_broker_takes_no_bridge", test_a_stopped_broker_takes_no_bridge},
        {"the_journal_stays_until_the_broker_is_freed", test_the_journal_stays_until_the_broker_is_freed},
        {"leases_outlive_their_broker", test_leases_outlive_their_broker},
        {"a_serving_thread_outlives_its_broker", test_a_serving_thread_outlives_its_broker},
        {"an_observer_has_the_last_report", test_an_observer_has_the_last_report},
        {"an_observer_may_be_forgotten_first", test_an_observer_may_be_forgotten_first},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
