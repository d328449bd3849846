/*
 * The functions of jobserver.h as a table: what an extension takes from the installed package instead of linking it.
 *
 * The list is the table's order. A new function goes to its end, which older extensions do not notice and newer ones
 * find out from the count. Whatever else changes (a function's arguments, a struct, the order) needs a new version.
 */
#ifndef JOBSERVER_TABLE_H
#define JOBSERVER_TABLE_H

#include "jobserver.h"

#define JOBSERVER_TABLE_VERSION 1

/* clang-format off */
#define JOBSERVER_FUNCTIONS(EACH) \
    EACH(client_create_pipe) \
    EACH(client_create_fifo) \
    EACH(client_create_private_fifo) \
    EACH(client_create_semaphore) \
    EACH(client_open_descriptors) \
    EACH(client_open_path) \
    EACH(client_open_semaphore) \
    EACH(client_close) \
    EACH(client_free) \
    EACH(client_available) \
    EACH(client_settle) \
    EACH(client_descriptors) \
    EACH(client_path) \
    EACH(client_inherit) \
    EACH(check_descriptor) \
    EACH(token_new) \
    EACH(token_free) \
    EACH(token_acquire) \
    EACH(token_acquire_implicit) \
    EACH(token_release) \
    EACH(token_drop) \
    EACH(token_acquire_or) \
    EACH(token_take) \
    EACH(token_give) \
    EACH(acquire_raw) \
    EACH(release_raw) \
    EACH(take_raw) \
    EACH(give_raw) \
    EACH(give_raw_plus) \
    EACH(batch_new) \
    EACH(batch_free) \
    EACH(batch_acquire) \
    EACH(batch_acquire_or) \
    EACH(batch_release) \
    EACH(hold_new) \
    EACH(hold_free) \
    EACH(event_new) \
    EACH(event_free) \
    EACH(event_set) \
    EACH(event_clear) \
    EACH(event_wait) \
    EACH(event_waitable) \
    EACH(implicit_owned) \
    EACH(implicit_watch) \
    EACH(interrupt_from) \
    EACH(broker_create) \
    EACH(broker_serve) \
    EACH(broker_stop) \
    EACH(broker_free) \
    EACH(broker_resize) \
    EACH(broker_describe) \
    EACH(lease_open) \
    EACH(lease_free) \
    EACH(lease_descriptors) \
    EACH(lease_path) \
    EACH(lease_start) \
    EACH(lease_give_up) \
    EACH(lease_spawned) \
    EACH(lease_end) \
    EACH(lease_wait) \
    EACH(lease_describe) \
    EACH(adopt_orphans) \
    EACH(token_byte) \
    EACH(broker_bridge) \
    EACH(broker_allow) \
    EACH(broker_rest) \
    EACH(broker_watch) \
    EACH(broker_lock) \
    EACH(lease_leave) \
    EACH(peer) \
    EACH(broker_record) \
    EACH(broker_changes) \
    EACH(lease_number) \
    EACH(lease_observe) \
    EACH(lease_forget)
/* clang-format on */

#ifdef __cplusplus
#define JOBSERVER_TABLE_MEMBER(name) decltype(jobserver_##name) *name;
#else
#define JOBSERVER_TABLE_MEMBER(name) __typeof__(jobserver_##name) *name;
#endif
#define JOBSERVER_TABLE_ONE(name) +1
#define JOBSERVER_TABLE_COUNT (0 JOBSERVER_FUNCTIONS(JOBSERVER_TABLE_ONE))

/* Each member is the function of jobserver.h with `jobserver_` before its name: `client_close`, `token_acquire` ... */
struct jobserver_table {
    int version; /* JOBSERVER_TABLE_VERSION of the core that made it */
    int count;   /* how many functions it has */
    JOBSERVER_FUNCTIONS(JOBSERVER_TABLE_MEMBER)
};

#endif
