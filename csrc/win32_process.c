/* Windows: the clock, the process's lock, exit and errors. */
#include "win32.h"

#if defined(_WIN32)

#include <errno.h>
#include <stdlib.h>
#include <wchar.h>

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

static BOOL CALLBACK claim(INIT_ONCE *once, void *argument, void **context) {
    (void)once, (void)argument, (void)context;
    wchar_t name[64];
    swprintf(name, sizeof name / sizeof *name, L"Local\\jobserver-implicit-slot-%lu", GetCurrentProcessId());
    return CreateMutexW(NULL, FALSE, name) != NULL && GetLastError() != ERROR_ALREADY_EXISTS;
}

/* The mutex is never closed: it says for as long as the process lives that its slot has an owner. */
bool jobserver_claim_implicit(void) {
    static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    return InitOnceExecuteOnce(&once, claim, NULL, NULL);
}

typedef int __cdecl add_exit_function(void(__cdecl *)(void));

/* The module that this code is in, kept from being unloaded; null if the system does not tell. */
static HMODULE own_module(void) {
    HMODULE self = NULL;
    DWORD pinned = GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS;
    GetModuleHandleExW(pinned, (const wchar_t *)&process_lock, &self);
    return self;
}

/*
 * What a library itself gives to atexit runs when it is unloaded, and then the other threads are dead, perhaps with
 * tokens in their hands. The list of the C library that the program has runs before, in exit(). In the program itself
 * that is the list of atexit, whatever other C libraries are loaded; in a library it is taken to be the universal
 * one's, which Python has.
 */
static BOOL CALLBACK start(INIT_ONCE *once, void *argument, void **context) {
    (void)once, (void)argument, (void)context;
    HMODULE c_library = own_module() == GetModuleHandleW(NULL) ? NULL : GetModuleHandleW(L"ucrtbase.dll");
    FARPROC found = c_library == NULL ? NULL : GetProcAddress(c_library, "_crt_atexit");
    if (found == NULL) {
        atexit(jobserver_process_exit);
    } else {
        ((add_exit_function *)(void (*)(void))found)(jobserver_process_exit);
    }
    return TRUE;
}

void jobserver_platform_start(void) {
    static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    InitOnceExecuteOnce(&once, start, NULL, NULL);
}

#endif
