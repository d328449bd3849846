/* Pools of every kind, each with the tokens a, b and c where others made it, and +++ where the core did. */
#ifndef POOLS_H
#define POOLS_H

#include "check.h"

enum pool_kind {
    OWN_PIPE,
    OWN_FIFO,
    PRIVATE_FIFO,
    INHERITED_PIPE,
    INHERITED_PIPE_THAT_DOES_NOT_BLOCK,
    INHERITED_FIFO,
    JOINED_FIFO,
    STREAM_SOCKET,
    PACKET_SOCKET,
    TERMINAL,
    TWO_PIPES,
    SOCKET_AND_PIPE,
    POOL_KINDS
};

#define POOL_TOKENS 3

struct pool {
    enum pool_kind kind;
    jobserver_client *client;
    int read_fd; /* what the client was given, or -1 */
    int write_fd;
    int server[2]; /* what is given back comes out of the first and must go into the second; or -1 */
};

struct pool open_pool(enum pool_kind kind);

/* Sees to it that the `count` tokens that were given back can be taken: what a server of tokens would do. */
void serve(struct pool *pool, int count);

/* Closes and frees the client, and all the rest. The tokens must all be there. */
void close_pool(struct pool *pool);

/* Whether a token of this pool can be taken without waiting. */
bool can_try(const struct pool *pool);

#endif
