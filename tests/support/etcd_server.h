/* SPDX-License-Identifier: Apache-2.0
 *
 * Real etcd for tests: one to three members, each an `etcd` process on a loopback address that no
 * other test uses, its data in a directory of its own. They die with the test and leave nothing.
 */
#ifndef FEATURED_TESTS_ETCD_SERVER_H
#define FEATURED_TESTS_ETCD_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "support/process.h"

#define ETCD_SERVER_MEMBERS_MAX 3u

struct etcd_server {
    char directory[64];
    uint32_t count;
    bool tls;
    char ca_path[96], cert_path[96], key_path[96]; /* with tls: also a client's */
    struct etcd_member {
        char name[4], host[32], client_url[64], peer_url[64], health_url[64], data_path[96],
            log_path[96];
        uint16_t client_port;
        struct process process;
    } members[ETCD_SERVER_MEMBERS_MAX];
};

/* Starts the members and waits until each says that it is healthy. tls: with certificates of a new
 * authority, asked of clients too. */
void etcd_server_start(struct etcd_server *server, uint32_t members, bool tls);
/* Kills what runs and removes the directory. */
void etcd_server_stop(struct etcd_server *server);

/* One member. Its data outlives it unless it is wiped. */
void etcd_server_kill(struct etcd_server *server, uint32_t member);
void etcd_server_restart(struct etcd_server *server, uint32_t member);
void etcd_server_freeze(struct etcd_server *server, uint32_t member);
void etcd_server_thaw(struct etcd_server *server, uint32_t member);
/* Starts a member that was killed, without its data: an etcd that has forgotten everything. For a
 * server of one. */
void etcd_server_restart_empty(struct etcd_server *server);
/* Saves all that it knows; starts a member that was killed with what was saved last. For a server
 * of one. */
void etcd_server_back_up(struct etcd_server *server);
void etcd_server_restart_restored(struct etcd_server *server);
void etcd_server_await_healthy(struct etcd_server *server, uint32_t member);

/* Of the running members; the leader must be elected. */
uint32_t etcd_server_leader(struct etcd_server *server);

/* "URL,URL,..." of all members. */
void etcd_server_endpoints(const struct etcd_server *server, char out[256]);
/* Runs etcdctl with these arguments (NULL at the end) against all members, or the one given. It
 * must succeed. Its output, to be freed. */
char *etcd_server_ctl(struct etcd_server *server, const char *const arguments[]);

#endif
