/* Leases for processes that the broker's process has not started, and hears of through a connection only. */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#define FOR_EVER (-1)

struct scene {
    jobserver_broker *broker;
    pthread_t thread;
    int changes;
};

static void *serve(void *broker) {
    CHECK_EQUAL(jobserver_broker_serve(broker), 0);
    return NULL;
}

static struct scene begin(int limit) {
    struct scene scene;
    CHECK_EQUAL(jobserver_broker_create(scratch_directory(), limit, &scene.broker), 0);
    CHECK_EQUAL(pthread_create(&scene.thread, NULL, serve, scene.broker), 0);
    scene.changes = jobserver_broker_watch(scene.broker);
    CHECK(scene.changes >= 0);
    CHECK_EQUAL(jobserver_broker_watch(scene.broker), scene.changes);
    return scene;
}

static void end(struct scene *scene) {
    jobserver_broker_report report;
    CHECK_EQUAL(jobserver_broker_describe(scene->broker, &report), 0);
    CHECK_EQUAL(report.in_use, 0);
    jobserver_broker_stop(scene->broker);
    CHECK_EQUAL(jobserver_broker_watch(scene->broker), JOBSERVER_CLOSED);
    CHECK_EQUAL(pthread_join(scene->thread, NULL), 0);
    jobserver_broker_free(scene->broker);
}

static bool has_changed(const struct scene *scene, int timeout) {
    struct pollfd polled = {.fd = scene->changes, .events = POLLIN};
    bool changed = poll(&polled, 1, timeout) == 1;
    char rung[64];
    while (read(scene->changes, rung, sizeof rung) > 0) {
    }
    return changed;
}

static jobserver_lease *open_lease(const struct scene *scene, int style) {
    jobserver_lease_terms terms = {.style = style, .weight = 1.0, .life_line = 1, .orphan_timeout = FOR_EVER};
    jobserver_lease *lease;
    CHECK_EQUAL(jobserver_lease_open(scene->broker, &terms, &lease), 0);
    return lease;
}

static jobserver_lease_report report_of(jobserver_lease *lease) {
    jobserver_lease_report report;
    CHECK_EQUAL(jobserver_lease_describe(lease, &report), 0);
    return report;
}

static void test_who_watches_hears_of_starts_and_ends(void) {
    struct scene scene = begin(1);
    CHECK(!has_changed(&scene, 0));
    jobserver_lease *first = open_lease(&scene, JOBSERVER_LEASE_FIFO);
    CHECK_EQUAL(jobserver_lease_start(first, FOR_EVER), 0);
    CHECK(has_changed(&scene, FOR_EVER));
    jobserver_lease *second = open_lease(&scene, JOBSERVER_LEASE_FIFO);
    jobserver_lease *third = open_lease(&scene, JOBSERVER_LEASE_FIFO);
    CHECK_EQUAL(jobserver_lease_start(second, 0), -ETIMEDOUT);
    CHECK_EQUAL(jobserver_lease_start(third, 0), -ETIMEDOUT);
    CHECK(!has_changed(&scene, 0));
    /* One that leaves the queue moves those behind it, and one that leaves its slot lets the next one start. */
    CHECK_EQUAL(jobserver_lease_leave(second), 0);
    CHECK(has_changed(&scene, FOR_EVER));
    CHECK_EQUAL(report_of(second).state, JOBSERVER_LEASE_ENDED);
    CHECK_EQUAL(report_of(third).queued_before, 0);
    CHECK_EQUAL(jobserver_lease_spawned(first, 0), 0);
    CHECK_EQUAL(jobserver_lease_leave(first), 0);
    while (jobserver_lease_start(third, 0) == -ETIMEDOUT) {
        CHECK(has_changed(&scene, FOR_EVER));
    }
    CHECK_EQUAL(jobserver_lease_leave(first), 0);
    CHECK_EQUAL(jobserver_lease_end(third), 0);
    jobserver_lease_free(first);
    jobserver_lease_free(second);
    jobserver_lease_free(third);
    end(&scene);
}

static void test_who_has_the_life_line_counts_when_the_process_has_left(void) {
    struct scene scene = begin(2);
    jobserver_lease *lease = open_lease(&scene, JOBSERVER_LEASE_PIPE);
    CHECK_EQUAL(jobserver_lease_start(lease, FOR_EVER), 0);
    int descriptors[3];
    CHECK_EQUAL(jobserver_lease_descriptors(lease, descriptors), 0);
    int take = dup(descriptors[0]), life_line = dup(descriptors[2]);
    CHECK_EQUAL(jobserver_lease_spawned(lease, 0), 0);
    unsigned char byte;
    CHECK_EQUAL(read(take, &byte, 1), 1);
    CHECK_EQUAL(jobserver_lease_leave(lease), 0);
    CHECK_EQUAL(report_of(lease).state, JOBSERVER_LEASE_ORPHANS);
    CHECK_EQUAL(report_of(lease).slots, 2);
    CHECK(has_changed(&scene, 0));
    CHECK_EQUAL(close(life_line), 0);
    while (report_of(lease).state != JOBSERVER_LEASE_ENDED) {
        CHECK(has_changed(&scene, FOR_EVER));
    }
    CHECK_EQUAL(report_of(lease).lost, 1);
    CHECK_EQUAL(report_of(lease).orphaned, 1);
    CHECK_EQUAL(close(take), 0);
    jobserver_lease_free(lease);
    end(&scene);
}

/* As if it had been killed: what the process has goes on to work, and nothing that it does ends it. */
static void test_pipes_outlive_the_broker(void) {
    struct scene scene = begin(2);
    jobserver_lease *lease = open_lease(&scene, JOBSERVER_LEASE_PIPE);
    CHECK_EQUAL(jobserver_lease_start(lease, FOR_EVER), 0);
    int descriptors[3];
    CHECK_EQUAL(jobserver_lease_descriptors(lease, descriptors), 0);
    int take = dup(descriptors[0]), give = dup(descriptors[1]);
    CHECK_EQUAL(jobserver_lease_spawned(lease, 0), 0);
    unsigned char byte;
    CHECK_EQUAL(read(take, &byte, 1), 1);
    CHECK_EQUAL(jobserver_lease_end(lease), 0);
    jobserver_lease_free(lease);
    end(&scene);
    CHECK_EQUAL(write(give, &byte, 1), 1);
    struct pollfd polled = {.fd = take, .events = POLLIN};
    CHECK_EQUAL(poll(&polled, 1, 0), 0);
    CHECK_EQUAL(read(give, &byte, 1), 1);
    CHECK_EQUAL(byte, '+');
    CHECK_EQUAL(close(take), 0);
    CHECK_EQUAL(close(give), 0);
}

static void test_a_peer_is_known(void) {
    int ends[2];
    int64_t user = -1;
    int process = -1;
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK_EQUAL(jobserver_peer(ends[0], &user, &process), 0);
    CHECK_EQUAL(user, geteuid());
    CHECK(process == 0 || process == getpid());
    CHECK_EQUAL(close(ends[0]), 0);
    CHECK_EQUAL(close(ends[1]), 0);
    CHECK_EQUAL(jobserver_peer(ends[0], &user, &process), -EBADF);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"who_watches_hears_of_starts_and_ends", test_who_watches_hears_of_starts_and_ends},
        {"who_has_the_life_line_counts", test_who_has_the_life_line_counts_when_the_process_has_left},
        {"pipes_outlive_the_broker", test_pipes_outlive_the_broker},
        {"a_peer_is_known", test_a_peer_is_known},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
