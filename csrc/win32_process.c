/* Windows: the clock, the process's lock, exit, interruptions and errors. */
#include "win32.h"

#if defined(_WIN32)

#include <errno.h>
#include <stdlib.h>

#include "jobserver.h"

#define NANOSECONDS 1000000000LL /* in a second */

int jobserver_last_error(void) {
    DWORD code = GetLastError();
    switch (code) {
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
        return -ENOMEM;
    case ERROR_TOO_MANY_POSTS:
        return JOBSERVER_TOO_MANY;
    default:
        return JOBSERVER_WINDOWS - (int)code;
    }
}

int64_t jobserver_now(void) {
    LARGE_INTEGER frequency, now;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&now);
    int64_t seconds = now.QuadPart / frequency.QuadPart, rest = now.QuadPart % frequency.QuadPart;
    return seconds * NANOSECONDS + rest * NANOSECONDS / frequency.QuadPart;
}

DWORD jobserver_milliseconds_left(int64_t deadline) {
    if (deadline < 0) {
        return INFINITE;
    }
    int64_t left = deadline - jobserver_now();
    if (left <= 0) {
        return 0;
    }
    int64_t milliseconds = (left + 999999) / 1000000;
    return milliseconds >= INFINITE ? INFINITE - 1 : (DWORD)milliseconds;
}

int jobserver_nothing_until(int64_t deadline) {
    return deadline >= 0 && jobserver_now() >= deadline ? -ETIMEDOUT : 0;
}

void jobserver_pause(void) {
    Sleep(1);
}

static SRWLOCK process_lock = SRWLOCK_INIT;

void jobserver_lock(void) {
    AcquireSRWLockExclusive(&process_lock);
}

void jobserver_unlock(void) {
    ReleaseSRWLockExclusive(&process_lock);
}

typedef int __cdecl add_exit_function(void(__cdecl *)(void));

/*
 * What a library itself gives to atexit runs when it is unloaded, and then the other threads are dead, perhaps with
 * tokens in their hands. The C library's own list runs before, in exit().
 */
static BOOL CALLBACK start(INIT_ONCE *once, void *argument, void **context) {
    (void)once, (void)argument, (void)context;
    HMODULE self, c_library = GetModuleHandleW(L"ucrtbase.dll");
    FARPROC found = c_library == NULL ? NULL : GetProcAddress(c_library, "_crt_atexit");
    if (found == NULL) {
        atexit(jobserver_process_exit);
        return TRUE;
    }
    DWORD pinned = GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS;
    GetModuleHandleExW(pinned, (const wchar_t *)&process_lock, &self);
    ((add_exit_function *)(void (*)(void))found)(jobserver_process_exit);
    return TRUE;
}

void jobserver_platform_start(void) {
    static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    InitOnceExecuteOnce(&once, start, NULL, NULL);
}

static _Atomic intptr_t interrupt_event;
static _Atomic DWORD interrupted_thread;

typedef void *__cdecl find_event(void);

/*
 * Has the waits of one thread end with -EINTR when an event is set, the one that a function of a loaded library
 * returns. A wait that it ends resets it, so an event that was set long ago ends no more than one.
 */
int jobserver_interrupt_from(intptr_t library, const char *function, unsigned thread) {
    FARPROC found = GetProcAddress((HMODULE)library, function);
    void *event = found == NULL ? NULL : ((find_event *)(void (*)(void))found)();
    if (event == NULL) {
        return JOBSERVER_UNSUPPORTED;
    }
    atomic_store(&interrupted_thread, thread);
    atomic_store(&interrupt_event, (intptr_t)event);
    return 0;
}

HANDLE jobserver_interrupt_event(void) {
    intptr_t event = atomic_load(&interrupt_event);
    return event != 0 && atomic_load(&interrupted_thread) == GetCurrentThreadId() ? (HANDLE)event : NULL;
}

#endif
