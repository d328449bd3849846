/* Leases: what each holds is known, all of it comes back, and nobody gets more than there is. */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOR_EVER (-1)

/* A broker with the thread that serves it. */
struct scene {
    jobserver_broker *broker;
    pthread_t thread;
};

static void *serve(void *broker) {
    CHECK_EQUAL(jobserver_broker_serve(broker), 0);
    return NULL;
}

static struct scene begin(int limit) {
    struct scene scene;
    CHECK_EQUAL(jobserver_broker_create(scratch_directory(), limit, &scene.broker), 0);
    CHECK_EQUAL(pthread_create(&scene.thread, NULL, serve, scene.broker), 0);
    return scene;
}

/*
 * The same where the system refuses what tells of moves: there are descriptors for the directory and two more, but not
 * for an inotify.
 */
static struct scene begin_in_ticks(int limit) {
    struct rlimit before, few;
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = dup(0);
    CHECK_EQUAL(close(next), 0);
    few = (struct rlimit){.rlim_cur = (rlim_t)next + 3, .rlim_max = before.rlim_max};
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &few), 0);
    struct scene scene;
    CHECK_EQUAL(jobserver_broker_create(scratch_directory(), limit, &scene.broker), 0);
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_EQUAL(dup(0), next + 3);
    CHECK_EQUAL(close(next + 3), 0);
    CHECK_EQUAL(pthread_create(&scene.thread, NULL, serve, scene.broker), 0);
    return scene;
}

static jobserver_broker_report pool_of(const struct scene *scene) {
    jobserver_broker_report report;
    CHECK_EQUAL(jobserver_broker_describe(scene->broker, &report), 0);
    return report;
}

/* All slots must be back. */
static void end(struct scene *scene) {
    CHECK_EQUAL(pool_of(scene).in_use, 0);
    jobserver_broker_stop(scene->broker);
    CHECK_EQUAL(pthread_join(scene->thread, NULL), 0);
    jobserver_broker_free(scene->broker);
}

static jobserver_lease_terms terms_of(int style) {
    return (jobserver_lease_terms){.style = style, .weight = 1.0, .orphan_timeout = FOR_EVER};
}

/* A lease as its process sees it. */
struct user {
    jobserver_lease *lease;
    int take;
    int give;
};

static struct user open_lease(const struct scene *scene, const jobserver_lease_terms *terms) {
    struct user user;
    int descriptors[3];
    char path[1000];
    CHECK_EQUAL(jobserver_lease_open(scene->broker, terms, &user.lease), 0);
    CHECK_EQUAL(jobserver_lease_descriptors(user.lease, descriptors), 0);
    CHECK_EQUAL(jobserver_lease_path(user.lease, path, sizeof path), 0);
    CHECK_EQUAL(descriptors[2] >= 0, terms->life_line);
    if (terms->style == JOBSERVER_LEASE_FIFO) {
        user.take = user.give = open(path, O_RDWR | O_CLOEXEC);
    } else {
        CHECK_EQUAL(path[0], 0);
        user.take = dup(descriptors[0]);
        user.give = dup(descriptors[1]);
    }
    CHECK(user.take >= 0 && user.give >= 0);
    return user;
}

static struct user started(const struct scene *scene, const jobserver_lease_terms *terms) {
    struct user user = open_lease(scene, terms);
    CHECK_EQUAL(jobserver_lease_start(user.lease, FOR_EVER), 0);
    CHECK_EQUAL(jobserver_lease_spawned(user.lease, 0), 0);
    return user;
}

static jobserver_lease_report report_of(const struct user *user) {
    jobserver_lease_report report;
    CHECK_EQUAL(jobserver_lease_describe(user->lease, &report), 0);
    return report;
}

static void close_lease(struct user *user) {
    CHECK_EQUAL(jobserver_lease_end(user->lease), 0);
    jobserver_lease_free(user->lease);
    close(user->take);
    if (user->give != user->take) {
        close(user->give);
    }
}

/* Takes as a client does, waiting. */
static void take(const struct user *user, int count) {
    for (int taken = 0; taken < count; taken++) {
        unsigned char byte;
        CHECK_EQUAL(read(user->take, &byte, 1), 1);
        CHECK_EQUAL(byte, '+');
    }
}

static void give(const struct user *user, const char *bytes) {
    CHECK_EQUAL(write(user->give, bytes, strlen(bytes)), strlen(bytes));
}

#define EACH_STYLE(style) for (int style = JOBSERVER_LEASE_PIPE; style <= JOBSERVER_LEASE_FIFO; style++)

static void test_one_lease_gets_everything(void) {
    EACH_STYLE(style) {
        struct scene scene = begin(8);
        jobserver_lease_terms terms = terms_of(style);
        struct user user = started(&scene, &terms);
        for (int round = 0; round < 3; round++) {
            take(&user, 7);
            WAIT_WHILE(report_of(&user).slots < 8);
            give(&user, "+++++++");
            WAIT_WHILE(report_of(&user).slots > 1);
        }
        jobserver_lease_report report = report_of(&user);
        CHECK_EQUAL(report.peak, 8);
        CHECK_EQUAL(report.over_released + report.foreign, 0);
        CHECK_EQUAL(jobserver_lease_end(user.lease), 0);
        CHECK_EQUAL(report_of(&user).lost, 0);
        close_lease(&user);
        end(&scene);
    }
}

static void test_what_a_lease_holds_at_its_end_is_back_at_once(void) {
    EACH_STYLE(style) {
        struct scene scene = begin(4);
        jobserver_lease_terms terms = terms_of(style);
        struct user loser = started(&scene, &terms);
        take(&loser, 3);
        WAIT_WHILE(report_of(&loser).slots < 4);
        struct user next = open_lease(&scene, &terms);
        CHECK_EQUAL(jobserver_lease_start(next.lease, MILLISECOND), -ETIMEDOUT);
        CHECK_EQUAL(jobserver_lease_end(loser.lease), 0);
        CHECK_EQUAL(report_of(&loser).lost, 3);
        CHECK_EQUAL(jobserver_lease_start(next.lease, FOR_EVER), 0);
        take(&next, 3);
        close_lease(&loser);
        close_lease(&next);
        end(&scene);
    }
}

/* What a flood brings in beyond what was taken is nobody's: neither the flooder's nor another's who waits. */
static void test_more_bytes_than_were_given_are_thrown_away(void) {
    EACH_STYLE(style) {
        struct scene scene = begin(4);
        jobserver_lease_terms terms = terms_of(style);
        struct user flooder = started(&scene, &terms), other = started(&scene, &terms);
        take(&flooder, 1);
        take(&other, 1);
        CHECK_EQUAL(pool_of(&scene).in_use, 4);
        give(&flooder, "++++++++++");
        WAIT_WHILE(report_of(&flooder).over_released < 9);
        take(&other, 1);
        struct pollfd more[] = {{.fd = flooder.take, .events = POLLIN}, {.fd = other.take, .events = POLLIN}};
        CHECK_EQUAL(poll(more, 2, 100), 0);
        CHECK_EQUAL(report_of(&flooder).over_released, 9);
        CHECK_EQUAL(report_of(&flooder).slots, 1);
        CHECK_EQUAL(report_of(&other).slots, 3);
        close_lease(&flooder);
        close_lease(&other);
        end(&scene);
    }
}

static void test_other_bytes_count_as_tokens_and_are_noted(void) {
    EACH_STYLE(style) {
        struct scene scene = begin(3);
        jobserver_lease_terms terms = terms_of(style);
        struct user user = started(&scene, &terms);
        take(&user, 2);
        give(&user, "xy");
        WAIT_WHILE(report_of(&user).slots > 1);
        CHECK_EQUAL(jobserver_lease_end(user.lease), 0);
        CHECK_EQUAL(report_of(&user).foreign, 2);
        CHECK_EQUAL(report_of(&user).lost, 0);
        close_lease(&user);
        end(&scene);
    }
}

static void test_what_one_leaves_lying_goes_to_who_waits(void) {
    EACH_STYLE(style) {
        struct scene scene = begin(6);
        jobserver_lease_terms terms = terms_of(style);
        struct user idle = started(&scene, &terms);
        struct user hungry = started(&scene, &terms);
        take(&hungry, 4);
        CHECK_EQUAL(report_of(&idle).slots, 1);
        /* One that is empty and waits is found out, although nothing tells that it waits. */
        give(&hungry, "+");
        take(&idle, 1);
        give(&idle, "+");
        close_lease(&idle);
        close_lease(&hungry);
        end(&scene);
    }
}

static void test_minimum_is_set_aside(void) {
    EACH_STYLE(style) {
        struct scene scene = begin(6);
        jobserver_lease_terms terms = terms_of(style);
        struct user greedy = started(&scene, &terms);
        take(&greedy, 4);
        WAIT_WHILE(report_of(&greedy).slots < 5);
        terms.minimum = 3;
        struct user aside = open_lease(&scene, &terms);
        CHECK_EQUAL(jobserver_lease_start(aside.lease, MILLISECOND), -ETIMEDOUT);
        give(&greedy, "++");
        CHECK_EQUAL(jobserver_lease_start(aside.lease, FOR_EVER), 0);
        take(&aside, 2);
        WAIT_WHILE(report_of(&aside).slots < 3);
        give(&aside, "++");
        WAIT_WHILE(report_of(&aside).untaken < 2);
        struct pollfd more = {.fd = greedy.take, .events = POLLIN};
        CHECK_EQUAL(poll(&more, 1, 200), 0);
        close_lease(&greedy);
        close_lease(&aside);
        end(&scene);
    }
}

static void test_maximum_is_kept(void) {
    EACH_STYLE(style) {
        struct scene scene = begin(6);
        jobserver_lease_terms terms = terms_of(style);
        terms.maximum = 3;
        struct user user = started(&scene, &terms);
        take(&user, 2);
        WAIT_WHILE(report_of(&user).slots < 3);
        struct pollfd more = {.fd = user.take, .events = POLLIN};
        CHECK_EQUAL(poll(&more, 1, 100), 0);
        close_lease(&user);
        end(&scene);
    }
}

static void test_resize(void) {
    EACH_STYLE(style) {
        struct scene scene = begin(2);
        jobserver_lease_terms terms = terms_of(style);
        struct user user = started(&scene, &terms);
        take(&user, 1);
        CHECK_EQUAL(jobserver_broker_resize(scene.broker, 5), 0);
        take(&user, 3);
        WAIT_WHILE(report_of(&user).slots < 5);
        CHECK_EQUAL(jobserver_broker_resize(scene.broker, 2), 0);
        CHECK_EQUAL(pool_of(&scene).in_use, 5);
        give(&user, "+++");
        WAIT_WHILE(report_of(&user).slots > 2);
        WAIT_WHILE(report_of(&user).untaken > 0);
        give(&user, "+");
        take(&user, 1);
        close_lease(&user);
        end(&scene);
    }
}

static void sleep_for_ever(void *unused) {
    (void)unused;
    for (;;) {
        pause();
    }
}

static void let_process_die(struct scene scene, int style) {
    jobserver_lease_terms terms = terms_of(style);
    struct user user = open_lease(&scene, &terms);
    CHECK_EQUAL(jobserver_lease_start(user.lease, FOR_EVER), 0);
    pid_t child = start(sleep_for_ever, NULL);
    CHECK_EQUAL(jobserver_lease_spawned(user.lease, child), 0);
    take(&user, 2);
    kill_child(child);
    CHECK_EQUAL(jobserver_lease_wait(user.lease, FOR_EVER), 0);
    CHECK_EQUAL(report_of(&user).lost, 2);
    CHECK_EQUAL(pool_of(&scene).in_use, 0);
    close_lease(&user);
    end(&scene);
}

static void test_a_lease_ends_with_its_process(void) {
    EACH_STYLE(style) {
        let_process_die(begin(3), style);
    }
}

static void test_a_lease_ends_with_its_process_in_ticks(void) {
    EACH_STYLE(style) {
        let_process_die(begin_in_ticks(3), style);
    }
}

/* A process that has the life line goes on after the one that it was started by. */
static void test_orphans_count_until_they_are_gone(void) {
    struct scene scene = begin(3);
    jobserver_lease_terms terms = terms_of(JOBSERVER_LEASE_PIPE);
    terms.life_line = 1;
    struct user user = open_lease(&scene, &terms);
    CHECK_EQUAL(jobserver_lease_start(user.lease, FOR_EVER), 0);
    pid_t orphan = start(sleep_for_ever, NULL);
    int descriptors[3];
    CHECK_EQUAL(jobserver_lease_descriptors(user.lease, descriptors), 0);
    pid_t child = start(sleep_for_ever, NULL);
    CHECK_EQUAL(jobserver_lease_spawned(user.lease, child), 0);
    take(&user, 1);
    WAIT_WHILE(report_of(&user).slots < 2);
    kill_child(child);
    WAIT_WHILE(report_of(&user).state != JOBSERVER_LEASE_ORPHANS);
    CHECK_EQUAL(pool_of(&scene).in_use, 2);
    CHECK_EQUAL(jobserver_lease_wait(user.lease, MILLISECOND), -ETIMEDOUT);
    kill_child(orphan);
    CHECK_EQUAL(jobserver_lease_wait(user.lease, FOR_EVER), 0);
    CHECK_EQUAL(report_of(&user).orphaned, 1);
    CHECK_EQUAL(report_of(&user).lost, 1);
    close_lease(&user);
    end(&scene);
}

static void test_orphans_are_waited_for_no_longer_than_was_said(void) {
    struct scene scene = begin(2);
    jobserver_lease_terms terms = terms_of(JOBSERVER_LEASE_FIFO);
    terms.life_line = 1;
    terms.orphan_timeout = MILLISECOND;
    struct user user = open_lease(&scene, &terms);
    CHECK_EQUAL(jobserver_lease_start(user.lease, FOR_EVER), 0);
    pid_t orphan = start(sleep_for_ever, NULL);
    pid_t child = start(sleep_for_ever, NULL);
    CHECK_EQUAL(jobserver_lease_spawned(user.lease, child), 0);
    kill_child(child);
    CHECK_EQUAL(jobserver_lease_wait(user.lease, FOR_EVER), 0);
    CHECK_EQUAL(report_of(&user).orphaned, 2);
    kill_child(orphan);
    close_lease(&user);
    end(&scene);
}

static void test_the_queue_is_served_in_its_order(void) {
    struct scene scene = begin(1);
    jobserver_lease_terms terms = terms_of(JOBSERVER_LEASE_FIFO);
    struct user users[3];
    for (int at = 0; at < 3; at++) {
        users[at] = open_lease(&scene, &terms);
        CHECK_EQUAL(jobserver_lease_start(users[at].lease, at == 0 ? FOR_EVER : 0), at == 0 ? 0 : -ETIMEDOUT);
        CHECK_EQUAL(report_of(&users[at]).queued_before, at == 2);
    }
    CHECK_EQUAL(pool_of(&scene).queued, 2);
    jobserver_lease_give_up(users[1].lease);
    CHECK_EQUAL(report_of(&users[2]).queued_before, 0);
    CHECK_EQUAL(jobserver_lease_end(users[0].lease), 0);
    CHECK_EQUAL(jobserver_lease_start(users[2].lease, FOR_EVER), 0);
    CHECK_EQUAL(jobserver_lease_start(users[2].lease, FOR_EVER), JOBSERVER_LEASE_STATE);
    /* One that gives up its slot unused lets the next one have it. */
    CHECK_EQUAL(jobserver_lease_start(users[1].lease, 0), -ETIMEDOUT);
    jobserver_lease_give_up(users[2].lease);
    CHECK_EQUAL(jobserver_lease_start(users[1].lease, FOR_EVER), 0);
    for (int at = 0; at < 3; at++) {
        close_lease(&users[at]);
    }
    end(&scene);
}

static void *stop(void *broker) {
    jobserver_broker_stop(broker);
    return NULL;
}

static void test_stopping_ends_waits(void) {
    struct scene scene = begin(1);
    jobserver_lease_terms terms = terms_of(JOBSERVER_LEASE_FIFO);
    struct user first = started(&scene, &terms), second = open_lease(&scene, &terms);
    pthread_t stopper;
    CHECK_EQUAL(jobserver_lease_start(second.lease, 0), -ETIMEDOUT);
    CHECK_EQUAL(pthread_create(&stopper, NULL, stop, scene.broker), 0);
    CHECK_EQUAL(jobserver_lease_start(second.lease, FOR_EVER), JOBSERVER_CLOSED);
    CHECK_EQUAL(pthread_join(stopper, NULL), 0);
    close_lease(&first);
    close_lease(&second);
    CHECK_EQUAL(pthread_join(scene.thread, NULL), 0);
    jobserver_broker_free(scene.broker);
}

struct forked {
    struct scene *scene;
    struct user *user;
};

static void use_in_child(void *argument) {
    struct forked *forked = argument;
    jobserver_broker_report pool;
    CHECK_EQUAL(jobserver_broker_describe(forked->scene->broker, &pool), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_lease_end(forked->user->lease), JOBSERVER_CLOSED);
    CHECK_EQUAL(jobserver_lease_start(forked->user->lease, FOR_EVER), JOBSERVER_CLOSED);
    jobserver_lease_free(forked->user->lease);
}

static void test_a_forked_child_changes_nothing(void) {
    EACH_STYLE(style) {
        struct scene scene = begin(3);
        jobserver_lease_terms terms = terms_of(style);
        struct user user = started(&scene, &terms);
        take(&user, 1);
        finish(start(use_in_child, &(struct forked){&scene, &user}));
        take(&user, 1);
        WAIT_WHILE(report_of(&user).slots < 3);
        give(&user, "++");
        WAIT_WHILE(report_of(&user).slots > 1);
        close_lease(&user);
        end(&scene);
    }
}

/* Many clients take and give back as fast as they can; the jobs that really run are counted apart. */
struct crowd {
    struct user user;
    atomic_int *running;
    atomic_int *most;
    int rounds;
    bool floods; /* gives five tokens back for one */
};

static void run_job(struct crowd *member) {
    int now = ++*member->running;
    int most = *member->most;
    while (now > most && !atomic_compare_exchange_weak(member->most, &most, now)) {
    }
    sched_yield();
    --*member->running;
}

static void *join_crowd(void *argument) {
    struct crowd *member = argument;
    for (int round = 0; round < member->rounds; round++) {
        take(&member->user, 1);
        if (!member->floods) {
            run_job(member);
        }
        give(&member->user, member->floods ? "+++++" : "+");
    }
    return NULL;
}

enum { MEMBERS = 6, TOKENS = 3 };

/*
 * They are as many as there are slots for, and three tokens. The jobs of flooders are not counted: what one of them gave
 * back too much may pass for the token that it took next, so it runs beside the others as if it had taken none.
 */
static void let_crowd_run(struct scene scene, int style, int rounds, int flooders) {
    jobserver_lease_terms terms = terms_of(style);
    struct crowd members[MEMBERS];
    pthread_t threads[MEMBERS];
    atomic_int running = 0, most = 0;
    for (int at = 0; at < MEMBERS; at++) {
        members[at] = (struct crowd){started(&scene, &terms), &running, &most, rounds, at < flooders};
    }
    for (int at = 0; at < MEMBERS; at++) {
        CHECK_EQUAL(pthread_create(&threads[at], NULL, join_crowd, &members[at]), 0);
    }
    for (int at = 0; at < MEMBERS; at++) {
        CHECK_EQUAL(pthread_join(threads[at], NULL), 0);
    }
    CHECK(most <= TOKENS);
    for (int at = 0; at < MEMBERS; at++) {
        CHECK_EQUAL(report_of(&members[at].user).slots, 1);
        CHECK_EQUAL(report_of(&members[at].user).over_released, members[at].floods ? 4 * rounds : 0);
        close_lease(&members[at].user);
    }
    end(&scene);
}

static void test_a_crowd(void) {
    EACH_STYLE(style) {
        let_crowd_run(begin(MEMBERS + TOKENS), style, scaled(2000), 0);
    }
}

static void test_a_crowd_in_ticks(void) {
    EACH_STYLE(style) {
        let_crowd_run(begin_in_ticks(MEMBERS + TOKENS), style, scaled(100), 0);
    }
}

/* On a fifo the flooder could take again what it wrote itself before anybody sees it. */
static void test_a_crowd_with_a_flooder(void) {
    let_crowd_run(begin(MEMBERS + TOKENS), JOBSERVER_LEASE_PIPE, scaled(1000), 1);
}

static void test_fifos_are_this_users_and_go_away(void) {
    struct scene scene = begin(1);
    jobserver_lease_terms terms = terms_of(JOBSERVER_LEASE_FIFO);
    jobserver_lease *lease;
    char path[1000];
    struct stat status;
    CHECK_EQUAL(jobserver_lease_open(scene.broker, &terms, &lease), 0);
    CHECK_EQUAL(jobserver_lease_path(lease, path, 10), -ERANGE);
    CHECK_EQUAL(jobserver_lease_path(lease, path, sizeof path), 0);
    CHECK_EQUAL(stat(path, &status), 0);
    CHECK(S_ISFIFO(status.st_mode));
    CHECK_EQUAL(status.st_mode & 0777, 0600);
    CHECK_EQUAL(jobserver_lease_end(lease), 0);
    CHECK_EQUAL(stat(path, &status), -1);
    jobserver_lease_free(lease);
    end(&scene);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"one_lease_gets_everything", test_one_lease_gets_everything},
        {"a_lease_ends_with_its_process_in_ticks", test_a_lease_ends_with_its_process_in_ticks},
        {"what_a_lease_holds_at_its_end_is_back_at_once", test_what_a_lease_holds_at_its_end_is_back_at_once},
        {"more_bytes_than_were_given_are_thrown_away", test_more_bytes_than_were_given_are_thrown_away},
        {"other_bytes_count_as_tokens_and_are_noted", test_other_bytes_count_as_tokens_and_are_noted},
        {"what_one_leaves_lying_goes_to_who_waits", test_what_one_leaves_lying_goes_to_who_waits},
        {"minimum_is_set_aside", test_minimum_is_set_aside},
        {"maximum_is_kept", test_maximum_is_kept},
        {"resize", test_resize},
        {"a_lease_ends_with_its_process", test_a_lease_ends_with_its_process},
        {"orphans_count_until_they_are_gone", test_orphans_count_until_they_are_gone},
        {"orphans_are_waited_for_no_longer_than_was_said", test_orphans_are_waited_for_no_longer_than_was_said},
        {"the_queue_is_served_in_its_order", test_the_queue_is_served_in_its_order},
        {"stopping_ends_waits", test_stopping_ends_waits},
        {"a_forked_child_changes_nothing", test_a_forked_child_changes_nothing},
        {"a_crowd", test_a_crowd},
        {"a_crowd_with_a_flooder", test_a_crowd_with_a_flooder},
        {"a_crowd_in_ticks", test_a_crowd_in_ticks},
        {"fifos_are_this_users_and_go_away", test_fifos_are_this_users_and_go_away},
        {NULL, NULL},
    };
    return run_tests(argc, argv, tests);
}
