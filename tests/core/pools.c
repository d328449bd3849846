#include "pools.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

static const char tokens[] = "abc";

static void put_tokens(int descriptor) {
    for (const char *token = tokens; *token != '\0'; token++) {
        CHECK_EQUAL(write(descriptor, token, 1), 1);
    }
}

static void open_fifo(struct pool *pool) {
    char path[600];
    snprintf(path, sizeof path, "%s/inherited", scratch_directory());
    CHECK_EQUAL(mkfifo(path, 0600), 0);
    pool->read_fd = open(path, O_RDONLY | O_NONBLOCK);
    pool->write_fd = open(path, O_WRONLY);
    CHECK(pool->read_fd >= 0 && pool->write_fd >= 0);
    CHECK_EQUAL(fcntl(pool->read_fd, F_SETFL, 0), 0);
    put_tokens(pool->write_fd);
    if (pool->kind == JOINED_FIFO) {
        CHECK_EQUAL(jobserver_client_open_path(path, &pool->client), 0);
    } else {
        pool->client = join(pool->read_fd, pool->write_fd);
    }
    unlink(path);
}

static void open_sockets(struct pool *pool, int type) {
    int ends[2];
    CHECK_EQUAL(socketpair(AF_UNIX, type, 0, ends), 0);
    pool->read_fd = ends[0];
    pool->write_fd = ends[1];
    put_tokens(pool->write_fd);
    pool->client = join(pool->read_fd, pool->write_fd);
}

/* A terminal that passes on what it gets: its master is the server. */
static void open_terminal(struct pool *pool) {
    int server = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(server >= 0 && grantpt(server) == 0 && unlockpt(server) == 0);
    pool->read_fd = pool->write_fd = open(ptsname(server), O_RDWR | O_NOCTTY);
    struct termios mode;
    CHECK_EQUAL(tcgetattr(pool->read_fd, &mode), 0);
    mode.c_iflag = mode.c_oflag = mode.c_lflag = 0;
    mode.c_cc[VMIN] = 1;
    mode.c_cc[VTIME] = 0;
    CHECK_EQUAL(tcsetattr(pool->read_fd, TCSANOW, &mode), 0);
    if (!ON_LINUX) {
        CHECK_EQUAL(fcntl(pool->read_fd, F_SETFL, O_RDWR | O_NONBLOCK), 0); /* the portable core cannot reopen it */
    }
    pool->server[0] = pool->server[1] = server;
    put_tokens(server);
    WAIT_WHILE(in_pipe(pool->read_fd) < POOL_TOKENS);
    pool->client = join(pool->read_fd, pool->write_fd);
}

static void open_two(struct pool *pool) {
    int there[2], back[2];
    if (pool->kind == SOCKET_AND_PIPE) {
        CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, there), 0);
    } else {
        CHECK_EQUAL(pipe(there), 0);
        CHECK_EQUAL(fcntl(there[0], F_SETFL, ON_LINUX ? 0 : O_NONBLOCK), 0);
    }
    CHECK_EQUAL(pipe(back), 0);
    pool->read_fd = there[0];
    pool->write_fd = back[1];
    pool->server[0] = back[0];
    pool->server[1] = there[1];
    put_tokens(pool->server[1]);
    pool->client = join(pool->read_fd, pool->write_fd);
}

static void open_pipe(struct pool *pool) {
    int ends[2];
    make_pipe(ends, tokens);
    pool->read_fd = ends[0];
    pool->write_fd = ends[1];
    if (pool->kind == INHERITED_PIPE_THAT_DOES_NOT_BLOCK) {
        CHECK_EQUAL(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    }
    pool->client = join(pool->read_fd, pool->write_fd);
}

static void create_fifo(struct pool *pool) {
    char path[600];
    snprintf(path, sizeof path, "%s/own", scratch_directory());
    CHECK_EQUAL(jobserver_client_create_fifo(path, POOL_TOKENS, &pool->client), 0);
}

struct pool open_pool(enum pool_kind kind) {
    struct pool pool = {.kind = kind, .read_fd = -1, .write_fd = -1, .server = {-1, -1}};
    switch (kind) {
    case OWN_PIPE:
        pool.client = own_pipe(POOL_TOKENS);
        break;
    case OWN_FIFO:
        create_fifo(&pool);
        break;
    case PRIVATE_FIFO:
        CHECK_EQUAL(jobserver_client_create_private_fifo(scratch_directory(), POOL_TOKENS, &pool.client), 0);
        break;
    case INHERITED_PIPE:
    case INHERITED_PIPE_THAT_DOES_NOT_BLOCK:
        open_pipe(&pool);
        break;
    case INHERITED_FIFO:
    case JOINED_FIFO:
        open_fifo(&pool);
        break;
    case STREAM_SOCKET:
        open_sockets(&pool, SOCK_STREAM);
        break;
    case PACKET_SOCKET:
        open_sockets(&pool, SOCK_SEQPACKET);
        break;
    case TERMINAL:
        open_terminal(&pool);
        break;
    case TWO_PIPES:
    case SOCKET_AND_PIPE:
        open_two(&pool);
        break;
    case POOL_KINDS:
        break;
    }
    return pool;
}

bool can_try(const struct pool *pool) {
    return ON_LINUX || (pool->kind != INHERITED_PIPE && pool->kind != INHERITED_FIFO);
}

void serve(struct pool *pool, int count) {
    if (pool->server[0] < 0) {
        return;
    }
    int before = in_pipe(pool->read_fd);
    unsigned char byte;
    for (int i = 0; i < count; i++) {
        CHECK_EQUAL(read(pool->server[0], &byte, 1), 1);
        CHECK_EQUAL(write(pool->server[1], &byte, 1), 1);
    }
    WAIT_WHILE(in_pipe(pool->read_fd) < before + count); /* a terminal takes its time */
}

/* All the tokens, each once, as they were: taken one after the other through a client of its own. */
static void check_whole(struct pool *pool) {
    int seen[256] = {0};
    CHECK_EQUAL(jobserver_client_available(pool->client), POOL_TOKENS);
    for (int i = 0; i < POOL_TOKENS; i++) {
        int byte = jobserver_acquire_raw(pool->client, -1);
        CHECK(byte >= 0);
        seen[byte]++;
    }
    if (pool->read_fd < 0) {
        CHECK_EQUAL(seen['+'], POOL_TOKENS);
    } else {
        CHECK(seen['a'] == 1 && seen['b'] == 1 && seen['c'] == 1);
    }
    for (int byte = 0; byte < 256; byte++) {
        for (; seen[byte] > 0; seen[byte]--) {
            CHECK_EQUAL(jobserver_release_raw(pool->client, byte), 0);
        }
    }
    serve(pool, POOL_TOKENS);
}

void close_pool(struct pool *pool) {
    check_whole(pool);
    CHECK_EQUAL(jobserver_client_close(pool->client), 0);
    jobserver_client_free(pool->client);
    int descriptors[] = {pool->read_fd, pool->write_fd, pool->server[0], pool->server[1]};
    for (size_t i = 0; i < sizeof descriptors / sizeof *descriptors; i++) {
        bool closed_before = i > 0 && descriptors[i] == descriptors[i - 1];
        if (descriptors[i] >= 0 && !closed_before) {
            CHECK_EQUAL(close(descriptors[i]), 0);
        }
    }
}
