/* POSIX: the clock, the process's lock, forks and exit. */
#include "posix.h"

#if !defined(_WIN32)

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
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

bool jobserver_try_lock(void) {
    return pthread_mutex_trylock(&process_lock) == 0;
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

#if defined(__linux__) && defined(__GLIBC__) && !defined(JOBSERVER_PORTABLE)

/*
 * A unique symbol: the dynamic linker of glibc lets all extensions of a process share it, however they were loaded. It
 * is defined in assembly because clang cannot declare it.
 */
__asm__(".pushsection .bss.jobserver_implicit_owner,\"aw\",%nobits\n"
        ".balign 8\n"
        ".type jobserver_implicit_owner, %gnu_unique_object\n"
        ".size jobserver_implicit_owner, 8\n"
        "jobserver_implicit_owner: .zero 8\n"
        ".popsection");
extern __attribute__((visibility("default"))) _Atomic(const void *) jobserver_implicit_owner;

bool jobserver_claim_implicit(void) {
    const void *owner = NULL;
    return atomic_compare_exchange_strong(&jobserver_implicit_owner, &owner, &process_lock) || owner == &process_lock;
}

#else

bool jobserver_claim_implicit(void) {
    return true;
}

#endif

/* Signals interrupt system calls without our help. */
int jobserver_interrupt_from(intptr_t library, const char *function, unsigned thread) {
    (void)library, (void)function, (void)thread;
    return JOBSERVER_UNSUPPORTED;
}

#endif
