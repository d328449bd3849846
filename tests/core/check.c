#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

#ifndef GUARD_SECONDS
#define GUARD_SECONDS 240
#endif

static char directory[512]; /* the scratch directory, or empty */
static pid_t directory_owner;

void check_that(bool holds, const char *text, const char *file, int line) {
    if (!holds) {
        fprintf(stderr, "%s:%d: not so: %s\n", file, line, text);
        _exit(1);
    }
}

void check_equal(int64_t actual, int64_t expected, const char *text, const char *expected_text, const char *file,
                 int line) {
    if (actual != expected) {
        fprintf(stderr, "%s:%d: %s is %lld, not %s (%lld)\n", file, line, text, (long long)actual, expected_text,
                (long long)expected);
        _exit(1);
    }
}

int scaled(int full) {
    const char *divisor = getenv("CORE_TEST_DIVISOR");
    int result = divisor == NULL ? full : full / atoi(divisor);
    return result < 1 ? 1 : result;
}

void *shared_memory(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

int open_descriptors(void) {
    int count = 0;
    for (int descriptor = 0; descriptor < 1024; descriptor++) {
        count += fcntl(descriptor, F_GETFD) >= 0 ? 1 : 0;
    }
    return count;
}

static pid_t start_child(void (*run)(void *), void *argument, bool properly) {
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        run(argument);
        if (!properly) {
            _exit(0);
        }
        exit(0);
    }
    return child;
}

pid_t start(void (*run)(void *), void *argument) {
    return start_child(run, argument, true);
}

pid_t start_without_exit(void (*run)(void *), void *argument) {
    return start_child(run, argument, false);
}

void finish(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        CHECK(errno == EINTR);
    }
    CHECK_EQUAL(status, 0);
}

void kill_child(pid_t child) {
    CHECK_EQUAL(kill(child, SIGKILL), 0);
    CHECK_EQUAL(waitpid(child, NULL, 0), child);
}

pid_t this_thread(void) {
#if defined(__linux__)
    return (pid_t)syscall(SYS_gettid);
#else
    return 0;
#endif
}

#if defined(__linux__)
static bool is_wait(long number) {
    static const long waits[] = {
        SYS_read, SYS_epoll_pwait, SYS_ppoll, SYS_flock, SYS_clock_nanosleep,
#if defined(SYS_poll)
        SYS_poll, SYS_epoll_wait,
#endif
    };
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        if (waits[i] == number) {
            return true;
        }
    }
    return false;
}

void wait_until_asleep(pid_t process, pid_t thread) {
    char path[64], text[32] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", (int)process, (int)thread);
    while (!is_wait(strtol(text, NULL, 10)) || text[0] < '0' || text[0] > '9') {
        int file = open(path, O_RDONLY | O_CLOEXEC);
        CHECK(file >= 0);
        ssize_t size = read(file, text, sizeof text - 1);
        CHECK(size > 0);
        text[size] = '\0';
        close(file);
        sched_yield();
    }
}
#else
/* Where a thread's state cannot be seen, a test that comes too early is weaker, but not wrong. */
void wait_until_asleep(pid_t process, pid_t thread) {
    (void)process;
    (void)thread;
    usleep(50000);
}
#endif

const char *scratch_directory(void) {
    if (directory[0] == '\0') {
        const char *place = getenv("TMPDIR");
        snprintf(directory, sizeof directory, "%s/core-test-XXXXXX", place == NULL ? "/tmp" : place);
        CHECK(mkdtemp(directory) != NULL);
        directory_owner = getpid();
    }
    return directory;
}

static void remove_scratch_directory(void) {
    DIR *entries = directory[0] == '\0' || directory_owner != getpid() ? NULL : opendir(directory);
    if (entries == NULL) {
        return;
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (unlinkat(dirfd(entries), entry->d_name, 0) < 0) {
            unlinkat(dirfd(entries), entry->d_name, AT_REMOVEDIR);
        }
    }
    closedir(entries);
    rmdir(directory);
}

jobserver_client *own_pipe(int limit) {
    jobserver_client *client = NULL;
    CHECK_EQUAL(jobserver_client_create_pipe(limit, &client), 0);
    return client;
}

jobserver_client *join(int read_fd, int write_fd) {
    jobserver_client *client = NULL;
    CHECK_EQUAL(jobserver_client_open_descriptors(read_fd, write_fd, &client), 0);
    return client;
}

jobserver_token *cell(jobserver_client *client) {
    jobserver_token *token = jobserver_token_new(client);
    CHECK(token != NULL);
    return token;
}

int64_t acquired(jobserver_token *token) {
    int64_t serial = jobserver_token_acquire(token, -1);
    while (serial == -EINTR) {
        serial = jobserver_token_acquire(token, -1);
    }
    CHECK(serial > 0);
    return serial;
}

void make_pipe(int ends[2], const char *tokens) {
    CHECK_EQUAL(pipe(ends), 0);
    CHECK_EQUAL(write(ends[1], tokens, strlen(tokens)), strlen(tokens));
}

void set_nonblocking(int descriptor) {
    CHECK_EQUAL(fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK), 0);
}

int in_pipe(int descriptor) {
    int count = -1;
    CHECK_EQUAL(ioctl(descriptor, FIONREAD, &count), 0);
    return count;
}

void fill_pipe(int write_fd) {
    int flags = fcntl(write_fd, F_GETFL);
    CHECK_EQUAL(fcntl(write_fd, F_SETFL, flags | O_NONBLOCK), 0);
    char bytes[4096];
    memset(bytes, '#', sizeof bytes);
    for (size_t size = sizeof bytes; size > 0; size /= 2) {
        while (write(write_fd, bytes, size) > 0) {
        }
    }
    CHECK_EQUAL(fcntl(write_fd, F_SETFL, flags), 0);
}

void drain_pipe(int read_fd, int count) {
    char byte;
    for (; count > 0; count--) {
        CHECK_EQUAL(read(read_fd, &byte, 1), 1);
    }
}

/* One test, in the process that was forked for it. */
static void run_here(const struct test *test) {
    int before = open_descriptors();
    signal(SIGPIPE, SIG_IGN);
    test->run();
    CHECK_EQUAL(open_descriptors(), before);
    remove_scratch_directory();
    exit(0);
}

static void time_is_up(int number) {
    (void)number;
}

/* Waits for a test, but not for ever, and kills what it has left behind. Returns its status, or -1. */
static int end_of(pid_t child) {
    struct sigaction action = {.sa_handler = time_is_up}; /* ends the wait */
    sigaction(SIGALRM, &action, NULL);
    alarm(GUARD_SECONDS);
    siginfo_t ended;
    int result = waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT);
    alarm(0);
    kill(-child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    return result < 0 ? -1 : status;
}

static bool run_test(const struct test *test) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        run_here(test);
    }
    int status = end_of(child);
    if (status != 0) {
        fprintf(stderr, "FAILED %s: %s %d\n", test->name,
                status == -1          ? "not after seconds:"
                : WIFSIGNALED(status) ? "signal"
                                      : "status",
                status == -1          ? GUARD_SECONDS
                : WIFSIGNALED(status) ? WTERMSIG(status)
                                      : WEXITSTATUS(status));
    }
    return status == 0;
}

static bool is_wanted(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], name) == 0) {
            return true;
        }
    }
    return argc < 2;
}

int run_tests(int argc, char **argv, const struct test *tests) {
    int failed = 0;
    for (; tests->name != NULL; tests++) {
        if (is_wanted(tests->name, argc, argv)) {
            failed += run_test(tests) ? 0 : 1;
        }
    }
    return failed > 0 ? 1 : 0;
}
