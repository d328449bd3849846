/*
 * POSIX: the lock on a pool, an flock on a description of its own.
 *
 * flock knows no timeout, and nothing but a signal ends it. So who may have to leave early lets a thread wait in its
 * place, which costs nothing while it sleeps; a thread whose owner has left unlocks as soon as it has the lock.
 */
#include "posix.h"

#if !defined(_WIN32)

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "internal.h"

enum state { STATE_NEW, STATE_WAITING, STATE_LOCKED, STATE_LEFT };

struct jobserver_pool_lock {
    int descriptor;
    atomic_int state;
    jobserver_event *locked; /* set by the thread; null while there is none */
    struct jobserver_pool_lock *next;
    struct jobserver_pool_lock **link; /* what points to this one */
};

/* All that are open, those of threads whose owner has left too. Under jobserver_lock. */
static struct jobserver_pool_lock *locks;

int jobserver_pool_lock_open(jobserver_channel *channel, jobserver_pool_lock **out) {
    struct jobserver_pool_lock *lock = calloc(1, sizeof *lock);
    int descriptor = lock == NULL ? -ENOMEM : jobserver_system_open_lock(channel);
    if (descriptor < 0) {
        free(lock);
        return descriptor;
    }
    lock->descriptor = descriptor;
    lock->next = locks;
    lock->link = &locks;
    if (lock->next != NULL) {
        lock->next->link = &lock->next;
    }
    locks = lock;
    *out = lock;
    return 0;
}

/* Closing alone would not unlock while another process has a copy, a forked one that execs later, say. */
static void unlock_and_free(struct jobserver_pool_lock *lock) {
    jobserver_lock();
    *lock->link = lock->next;
    if (lock->next != NULL) {
        lock->next->link = lock->link;
    }
    flock(lock->descriptor, LOCK_UN);
    close(lock->descriptor);
    jobserver_unlock();
    if (lock->locked != NULL) {
        jobserver_event_free(lock->locked);
    }
    free(lock);
}

/* What the thread does. All signals are blocked in it, so that flock is not interrupted. */
static void *wait_in_place(void *argument) {
    struct jobserver_pool_lock *lock = argument;
    while (flock(lock->descriptor, LOCK_EX) < 0 && errno == EINTR) {
    }
    int expected = STATE_WAITING;
    jobserver_lock(); /* the owner does not free the event between the exchange and the use of it */
    bool wanted = atomic_compare_exchange_strong(&lock->state, &expected, STATE_LOCKED);
    if (wanted) {
        jobserver_event_set(lock->locked);
    }
    jobserver_unlock();
    if (!wanted) {
        unlock_and_free(lock);
    }
    return NULL;
}

/* Starts the thread, detached, with all signals blocked. 0 or a negated errno. */
static int start_thread(struct jobserver_pool_lock *lock) {
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, NULL, wait_in_place, lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) {
        pthread_detach(thread);
    }
    return -error;
}

/* Lets a thread wait for the lock. 0 or a negated errno, and then nothing has changed. */
static int wait_by_thread(struct jobserver_pool_lock *lock) {
    int result = jobserver_event_new(&lock->locked);
    if (result == 0) {
        atomic_store(&lock->state, STATE_WAITING);
        result = start_thread(lock);
    }
    if (result < 0 && lock->locked != NULL) {
        atomic_store(&lock->state, STATE_NEW);
        jobserver_event_free(lock->locked);
        lock->locked = NULL;
    }
    return result;
}

/* After -EINTR and JOBSERVER_READY the place in the queue is kept for the next call. */
int jobserver_pool_lock_wait(jobserver_pool_lock *lock, const struct jobserver_until *until) {
    if (atomic_load(&lock->state) == STATE_NEW) {
        bool may_sleep = until->deadline < 0 && until->count == 0;
        if (flock(lock->descriptor, may_sleep ? LOCK_EX : LOCK_EX | LOCK_NB) == 0) {
            return 0;
        }
        if (errno != EWOULDBLOCK || until->deadline == 0) {
            return errno == EWOULDBLOCK ? -EAGAIN : -errno;
        }
        int result = wait_by_thread(lock);
        if (result < 0) {
            return result;
        }
    }
    int result = 0;
    while (result == 0 && atomic_load(&lock->state) != STATE_LOCKED) {
        result = jobserver_poll((int)jobserver_event_waitable(lock->locked), until);
    }
    return result;
}

void jobserver_pool_lock_close(jobserver_pool_lock *lock) {
    int expected = STATE_WAITING;
    jobserver_lock();
    bool left = atomic_compare_exchange_strong(&lock->state, &expected, STATE_LEFT);
    jobserver_unlock();
    if (!left) {
        unlock_and_free(lock);
    }
}

/*
 * The copies of a child would keep a pool locked when its parent dies. Only the descriptors are given up: the memory
 * may have been in use at the fork.
 */
void jobserver_pool_locks_forked(void) {
    for (struct jobserver_pool_lock *lock = locks; lock != NULL; lock = lock->next) {
        if (lock->descriptor >= 0) {
            close(lock->descriptor);
            lock->descriptor = -1;
            if (lock->locked != NULL) {
                jobserver_event_close(lock->locked);
            }
        }
    }
}

#endif
