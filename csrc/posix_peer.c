/* POSIX: who is at the far end of a local socket. */
#include "posix.h"

#if !defined(_WIN32)

#include <errno.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include "jobserver.h"

/*
 * Sets the number of the user and of the process who connected; the process's is 0 where the system does not tell, or
 * where it has no number in this process's name space. 0 or a negated errno.
 */
#if defined(__linux__)
int jobserver_peer(int socket, int64_t *user, int *process) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
        return -errno;
    }
    *user = (int64_t)peer.uid;
    *process = (int)peer.pid;
    return 0;
}
#else
int jobserver_peer(int socket, int64_t *user, int *process) {
    uid_t uid;
    gid_t gid;
    if (getpeereid(socket, &uid, &gid) < 0) {
        return -errno;
    }
    *user = (int64_t)uid;
    *process = 0;
    return 0;
}
#endif

#endif
