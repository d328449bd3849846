/*
 * A small frame for tests of the core. Each test runs in a process of its own, which must leave as many descriptors
 * open as it found and must end before a guard kills it. Included first.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef _DARWIN_C_SOURCE
#define _DARWIN_C_SOURCE
#endif

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "jobserver.h"

struct test {
    const char *name;
    void (*run)(void);
};

/* Runs the tests up to the one without a name, or just those whose names are arguments. Returns main's result. */
int run_tests(int argc, char **argv, const struct test *tests);

#define CHECK(condition) check_that(condition, #condition, __FILE__, __LINE__)
#define CHECK_EQUAL(actual, expected)                                                                                  \
    check_equal((int64_t)(actual), (int64_t)(expected), #actual, #expected, __FILE__, __LINE__)

/* Both end the process with a message if it is not so. */
void check_that(bool holds, const char *text, const char *file, int line);
void check_equal(int64_t actual, int64_t expected, const char *text, const char *expected_text, const char *file,
                 int line);

/* How often to do something that tools make slow: CORE_TEST_DIVISOR in the environment divides it. */
int scaled(int full);

/* Zeroed memory that forked children share. Never freed. */
void *shared_memory(size_t size);

/* How many descriptors are open. */
int open_descriptors(void);

/* Forks a child that does this and exits with 0, in the way of exit() or of _exit(). */
pid_t start(void (*run)(void *), void *argument);
pid_t start_without_exit(void (*run)(void *), void *argument);

/* Waits for a child, which must have succeeded. */
void finish(pid_t child);

/* Kills a child, whatever it does, and waits for it. */
void kill_child(pid_t child);

/* Lets others run until this is no longer so. */
#define WAIT_WHILE(condition)                                                                                          \
    do {                                                                                                               \
        sched_yield();                                                                                                 \
    } while (condition)

/* Waits until this thread of that process is in a system call that waits. */
void wait_until_asleep(pid_t process, pid_t thread);
pid_t this_thread(void);

/* A directory that is empty, for this test only; removed with what is left in it when the test ends. */
const char *scratch_directory(void);

/* Short forms that cannot fail. */
jobserver_client *own_pipe(int limit);
jobserver_client *join(int read_fd, int write_fd);
jobserver_token *cell(jobserver_client *client);
int64_t acquired(jobserver_token *token);
void make_pipe(int ends[2], const char *tokens);
void set_nonblocking(int descriptor);
int in_pipe(int descriptor);
void fill_pipe(int write_fd);
void drain_pipe(int read_fd, int count);

#define MILLISECOND INT64_C(1000000)

/* Builds as JOBSERVER_PORTABLE makes them, or systems other than Linux. */
#if defined(__linux__) && !defined(JOBSERVER_PORTABLE)
#define ON_LINUX true
#else
#define ON_LINUX false
#endif

#endif
