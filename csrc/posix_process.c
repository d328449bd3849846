/* POSIX: the clock, the process's lock, forks and exit. */
#include "posix.h"

#if !defined(_WIN32)

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

int64_t jobserver_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * JOBSERVER_NANOSECONDS + now.tv_nsec;
}

void jobserver_pause(void) {
    struct timespec moment = {.tv_nsec = 50000};
    nanosleep(&moment, NULL);
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

static pthread_mutex_t process_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t started = PTHREAD_ONCE_INIT;
static void (*on_fork)(void);
static void (*on_exit_process)(void);

void jobserver_lock(void) {
    pthread_mutex_lock(&process_lock);
}

void jobserver_unlock(void) {
    pthread_mutex_unlock(&process_lock);
}

static void in_child(void) {
    on_fork();
    jobserver_unlock();
}

static void start(void) {
    pthread_atfork(jobserver_lock, jobserver_unlock, in_child);
    atexit(on_exit_process);
}

void jobserver_platform_start(void (*forked)(void), void (*exiting)(void)) {
    on_fork = forked;
    on_exit_process = exiting;
    pthread_once(&started, start);
}

#endif
