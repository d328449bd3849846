/* POSIX: the clock, the process's lock, forks and exit. */
#include "posix.h"

#if !defined(_WIN32)

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "jobserver.h"

int64_t jobserver_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * JOBSERVER_NANOSECONDS + now.tv_nsec;
}

int jobserver_milliseconds_left(int64_t deadline) {
    if (deadline < 0) {
        return -1;
    }
    int64_t left = deadline - jobserver_now();
    if (left <= 0) {
        return 0;
    }
    int64_t milliseconds = (left + 999999) / 1000000;
    return milliseconds > INT_MAX ? INT_MAX : (int)milliseconds;
}

int jobserver_nothing_until(int64_t deadline) {
    return deadline >= 0 && jobserver_now() >= deadline ? -ETIMEDOUT : 0;
}

void jobserver_pause(void) {
    struct timespec moment = {.tv_nsec = 50000};
    nanosleep(&moment, NULL);
}

static pthread_mutex_t process_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t started = PTHREAD_ONCE_INIT;

void jobserver_lock(void) {
    pthread_mutex_lock(&process_lock);
}

void jobserver_unlock(void) {
    pthread_mutex_unlock(&process_lock);
}

static void in_child(void) {
    jobserver_process_forked();
    jobserver_pool_locks_forked();
    jobserver_unlock();
}

static void start(void) {
    pthread_atfork(jobserver_lock, jobserver_unlock, in_child);
    atexit(jobserver_process_exit);
}

void jobserver_platform_start(void) {
    pthread_once(&started, start);
}

/* Signals interrupt system calls without our help. */
int jobserver_interrupt_from(intptr_t library, const char *function, unsigned thread) {
    (void)library, (void)function, (void)thread;
    return JOBSERVER_UNSUPPORTED;
}

#endif
