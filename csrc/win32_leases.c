/*
 * Windows: the pipes of a lease are a semaphore under a name of its own, and a job object around its processes.
 *
 * The count of the semaphore is what lies there and can be taken; nobody is told when it changes (win32_news.c). It has
 * room for the slots of the pool: whoever gives back more than that is told so by the system.
 */
#include "win32.h"

#if defined(_WIN32)

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker_platform.h"

/* A process of another program's making cannot be adopted. */
int jobserver_adopt_orphans(void) {
    return JOBSERVER_UNSUPPORTED;
}

/* Semaphores lie in no directory. */
int jobserver_lease_directory_open(const char *parent, struct jobserver_directory **directory) {
    (void)parent;
    *directory = NULL;
    return 0;
}

void jobserver_lease_directory_close(struct jobserver_directory *directory, bool remove) {
    (void)directory, (void)remove;
}

int jobserver_lease_directory_lock(const struct jobserver_directory *directory) {
    (void)directory;
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_peer(int socket, int64_t *user, int *process) {
    (void)socket, (void)user, (void)process;
    return JOBSERVER_UNSUPPORTED;
}

void jobserver_handle_close(int *number) {
    if (*number != -1) {
        CloseHandle(jobserver_handle(*number));
    }
    *number = -1;
}

/* Makes the semaphore, without tokens, and gives its name to the pipes. */
static int open_semaphore(struct jobserver_lease_pipes *pipes, int most) {
    char name[JOBSERVER_SEMAPHORE_NAME];
    HANDLE semaphore;
    int result = jobserver_semaphore_create(0, most, name, &semaphore);
    if (result < 0) {
        return result;
    }
    pipes->offer = jobserver_handle_number(semaphore);
    pipes->path = _strdup(name);
    return pipes->path == NULL ? -ENOMEM : 0;
}

static int open_job(struct jobserver_lease_pipes *pipes) {
    HANDLE job = CreateJobObjectW(NULL, NULL);
    if (job == NULL) {
        return jobserver_last_error();
    }
    pipes->life_line = jobserver_handle_number(job);
    return 0;
}

int jobserver_lease_pipes_open(struct jobserver_directory *directory, unsigned number, bool fifo, bool life_line,
                               int most, struct jobserver_lease_pipes *pipes) {
    (void)directory, (void)number, (void)fifo;
    *pipes = (struct jobserver_lease_pipes){
        .offer = -1, .returned = -1, .life_line = -1, .for_child = {-1, -1, -1}, .path = NULL};
    int result = open_semaphore(pipes, most);
    if (result == 0 && life_line) {
        result = open_job(pipes);
    }
    if (result < 0) {
        jobserver_lease_pipes_close(pipes, true);
    }
    return result;
}

/* A child inherits nothing but the name. */
void jobserver_lease_pipes_close_child(struct jobserver_lease_pipes *pipes) {
    (void)pipes;
}

void jobserver_lease_pipes_close(struct jobserver_lease_pipes *pipes, bool remove) {
    (void)remove;
    jobserver_handle_close(&pipes->offer);
    jobserver_handle_close(&pipes->life_line);
    free(pipes->path);
    pipes->path = NULL;
}

/* A job that the system does not tell of counts as empty: nobody would ever learn that it is. */
bool jobserver_job_is_empty(int job) {
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION account;
    return !QueryInformationJobObject(jobserver_handle(job), JobObjectBasicAccountingInformation, &account,
                                      sizeof account, NULL) ||
           account.ActiveProcesses == 0;
}

bool jobserver_lease_pipes_all_gone(const struct jobserver_lease_pipes *pipes) {
    return pipes->life_line == -1 || jobserver_job_is_empty(pipes->life_line);
}

int jobserver_lease_pipes_untaken(const struct jobserver_lease_pipes *pipes) {
    struct jobserver_semaphore_state state;
    return jobserver_semaphore_ask(jobserver_handle(pipes->offer), &state) ? (int)state.count : 0;
}

/* No more than there is room for: the system releases all of them or none. */
int jobserver_lease_pipes_offer(const struct jobserver_lease_pipes *pipes, int count) {
    HANDLE semaphore = jobserver_handle(pipes->offer);
    struct jobserver_semaphore_state state;
    if (!jobserver_semaphore_ask(semaphore, &state)) {
        return 0;
    }
    int room = (int)(state.maximum - state.count);
    int offered = count < room ? count : room;
    return offered > 0 && ReleaseSemaphore(semaphore, offered, NULL) ? offered : 0;
}

int jobserver_lease_pipes_withdraw(const struct jobserver_lease_pipes *pipes, int count, int64_t *foreign) {
    (void)foreign;
    int withdrawn = 0;
    while (withdrawn < count && WaitForSingleObject(jobserver_handle(pipes->offer), 0) == WAIT_OBJECT_0) {
        withdrawn++;
    }
    return withdrawn;
}

int jobserver_lease_pipes_fetch(const struct jobserver_lease_pipes *pipes, int count, int64_t *foreign) {
    (void)pipes, (void)count, (void)foreign;
    return 0;
}

/* A bell is an event that one waiter finds set and clears. */
int jobserver_bell_open(struct jobserver_bell *bell) {
    HANDLE event = CreateEventW(NULL, FALSE, FALSE, NULL);
    bell->ends[0] = bell->ends[1] = -1;
    if (event == NULL) {
        return jobserver_last_error();
    }
    bell->ends[0] = jobserver_handle_number(event);
    return 0;
}

void jobserver_bell_close(struct jobserver_bell *bell) {
    jobserver_handle_close(&bell->ends[0]);
}

void jobserver_bell_ring(struct jobserver_bell *bell) {
    if (bell->ends[0] != -1) {
        SetEvent(jobserver_handle(bell->ends[0]));
    }
}

int jobserver_bell_wait(struct jobserver_bell *bell, int64_t deadline) {
    struct jobserver_until until = {.deadline = deadline};
    int result = jobserver_wait_for(jobserver_handle(bell->ends[0]), NULL, &until);
    return result > 0 ? 0 : result;
}

#endif
