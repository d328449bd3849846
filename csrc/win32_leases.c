/* Windows: no leases. A broker cannot be made, so nothing else in here is ever called. */
#include "broker_platform.h"

#if defined(_WIN32)

#include "jobserver.h"

int jobserver_adopt_orphans(void) {
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_lease_directory_open(const char *parent, struct jobserver_directory **directory) {
    (void)parent;
    (void)directory;
    return JOBSERVER_UNSUPPORTED;
}

void jobserver_lease_directory_close(struct jobserver_directory *directory, bool remove) {
    (void)directory;
    (void)remove;
}

int jobserver_lease_directory_lock(const struct jobserver_directory *directory) {
    (void)directory;
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_peer(int socket, int64_t *user, int *process) {
    (void)socket;
    (void)user;
    (void)process;
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_lease_pipes_open(struct jobserver_directory *directory, unsigned number, bool fifo, bool life_line,
                               struct jobserver_lease_pipes *pipes) {
    (void)directory;
    (void)number;
    (void)fifo;
    (void)life_line;
    (void)pipes;
    return JOBSERVER_UNSUPPORTED;
}

void jobserver_lease_pipes_close_child(struct jobserver_lease_pipes *pipes) {
    (void)pipes;
}

void jobserver_lease_pipes_close(struct jobserver_lease_pipes *pipes, bool remove) {
    (void)pipes;
    (void)remove;
}

bool jobserver_lease_pipes_all_gone(const struct jobserver_lease_pipes *pipes) {
    (void)pipes;
    return true;
}

int jobserver_lease_pipes_untaken(const struct jobserver_lease_pipes *pipes) {
    (void)pipes;
    return 0;
}

int jobserver_lease_pipes_offer(const struct jobserver_lease_pipes *pipes, int count) {
    (void)pipes;
    (void)count;
    return 0;
}

int jobserver_lease_pipes_withdraw(const struct jobserver_lease_pipes *pipes, int count, int64_t *foreign) {
    (void)pipes;
    (void)count;
    (void)foreign;
    return 0;
}

int jobserver_lease_pipes_fetch(const struct jobserver_lease_pipes *pipes, int count, int64_t *foreign) {
    (void)pipes;
    (void)count;
    (void)foreign;
    return 0;
}

int jobserver_news_open(struct jobserver_news **news) {
    (void)news;
    return JOBSERVER_UNSUPPORTED;
}

void jobserver_news_close(struct jobserver_news *news) {
    (void)news;
}

int jobserver_watch_add(struct jobserver_news *news, const struct jobserver_lease_pipes *pipes, void *owner,
                        struct jobserver_watch **watch) {
    (void)news;
    (void)pipes;
    (void)owner;
    (void)watch;
    return JOBSERVER_UNSUPPORTED;
}

int jobserver_watch_process(struct jobserver_news *news, struct jobserver_watch *watch, int process) {
    (void)news;
    (void)watch;
    (void)process;
    return JOBSERVER_UNSUPPORTED;
}

void jobserver_watch_remove(struct jobserver_news *news, struct jobserver_watch *watch) {
    (void)news;
    (void)watch;
}

void jobserver_news_wait(struct jobserver_news *news, int64_t deadline, bool busy) {
    (void)news;
    (void)deadline;
    (void)busy;
}

void jobserver_news_wake(struct jobserver_news *news) {
    (void)news;
}

unsigned jobserver_news_take_next(struct jobserver_news *news, void **owner) {
    (void)news;
    (void)owner;
    return 0;
}

int jobserver_bell_open(struct jobserver_bell *bell) {
    (void)bell;
    return JOBSERVER_UNSUPPORTED;
}

void jobserver_bell_close(struct jobserver_bell *bell) {
    (void)bell;
}

void jobserver_bell_ring(struct jobserver_bell *bell) {
    (void)bell;
}

int jobserver_bell_wait(struct jobserver_bell *bell, int64_t deadline) {
    (void)bell;
    (void)deadline;
    return JOBSERVER_UNSUPPORTED;
}

#endif
