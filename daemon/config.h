/* SPDX-License-Identifier: Apache-2.0
 *
 * featured.conf as a struct. Parsing is strict: an unknown section or key, a bad value or one out
 * of range is refused with "file:line: [section] key = value: what is wrong, the allowed range".
 * Keys, units and defaults are documented in conf/featured.conf and featured.conf(5); the table in
 * config_keys.c is the single source of defaults and ranges.
 */
#ifndef FEATURED_CONFIG_H
#define FEATURED_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ops/log.h"
#include "store/charges.h"

#define CONFIG_NAME_MAX   65u
#define CONFIG_PEERS_MAX  1024u
#define CONFIG_STORES_MAX 256u
#define CONFIG_IDS_MAX    64u

struct config_ids { /* empty list = everybody whom the socket's mode lets in */
    uint32_t ids[CONFIG_IDS_MAX];
    uint32_t count;
};

enum config_directory { CONFIG_DIRECTORY_STATIC = 0, CONFIG_DIRECTORY_ETCD };

enum config_transport { CONFIG_TRANSPORT_AUTO = 0, CONFIG_TRANSPORT_TCP, CONFIG_TRANSPORT_RDMA };

struct config_peer {
    char node[CONFIG_NAME_MAX];
    char address[256];      /* host:port */
    char data_address[256]; /* where its bytes are read; "" = at the same place */
};

struct config_store { /* [store NAME] */
    char name[CONFIG_NAME_MAX];
    uint32_t policy;   /* Fb__Policy: on-release, on-ack, retain */
    uint32_t checksum; /* Fb__ChecksumPolicy: after-network, always, never */
    uint32_t readers;  /* 1.. */
    uint64_t max_resident_bytes, landing_bytes;
    uint64_t max_hold_ms;    /* 0 = for ever */
    uint64_t max_reserve_ms; /* 0 = no bound */
    uint64_t max_wait_ms;    /* 0 = no bound */
    uint64_t max_pass_ms;
    uint32_t max_samples;
    char secret_file[256];         /* "" = no secret */
    struct config_ids allow_uids;  /* who may open it */
    struct config_ids writer_uids; /* who may put; empty = everyone who may open it */
};

struct config {
    /* [node] */
    char node[CONFIG_NAME_MAX]; /* default: host name */
    /* [local] */
    char socket_path[108];
    uint32_t socket_mode; /* octal, default 0660 */
    char socket_group[64];
    struct config_ids allow_uids, allow_gids,
        admin_uids; /* root and the daemon's own uid are always admin */
    uint32_t max_sessions;
    uint32_t max_sessions_per_user; /* of who is no admin; 0 = half of max_sessions */
    uint32_t admin_sessions;        /* kept for admins */
    uint32_t hello_timeout_ms;
    /* [local], [stores] and [peers] max_..._per_session, _per_user, _per_peer: see charge_key() */
    struct charge_limits limits;
    /* [memory] */
    uint64_t max_resident_bytes; /* node quota over all stores */
    uint32_t hugepages;          /* enum arena_hugepages: off, try, require */
    bool prefault;
    /* [stores]: defaults for [store NAME] and for stores created at run time */
    struct config_store store_defaults;
    uint32_t max_stores;
    /* [peers] */
    char listen[256];       /* host:port; "" = no peers */
    char advertise[256];    /* where the others find `listen`; "" = there */
    char data_address[256]; /* where they read bytes; "" = at the same place */
    char cluster_secret_file[256];
    uint32_t transport; /* enum config_transport */
    bool require_rdma;
    uint64_t chunk_bytes;
    uint32_t reads_per_peer, peer_timeout_ms, ping_interval_ms, reconnect_max_ms;
    uint32_t handshake_timeout_ms, max_connections;
    /* [rdma] */
    char rdma_devices[256]; /* "" = every one with a routable address */
    uint64_t rdma_registration_bytes;
    uint32_t rdma_reads_in_flight, rdma_stall_timeout_ms;
    /* [peer NAME] address = host:port */
    struct config_peer *peers;
    size_t peer_count;
    /* [store NAME] */
    struct config_store *stores;
    size_t store_count;
    /* [directory] */
    enum config_directory directory;
    char etcd_endpoints[1024]; /* http[s]://host:port, with blanks or commas between */
    char etcd_cluster[CONFIG_NAME_MAX];
    char etcd_ca_file[256], etcd_cert_file[256], etcd_key_file[256]; /* "" = none */
    char etcd_username[CONFIG_NAME_MAX], etcd_password_file[256];
    uint64_t lease_ttl_ms, batch_delay_ms;
    uint32_t batch_max;           /* samples per transaction */
    uint64_t lost_keep_ms;        /* 0 = records of dead homes are kept for ever */
    uint64_t compare_interval_ms; /* 0 = only with a cause */
    /* [daemon] */
    enum log_level log_level;
    uint32_t drain_timeout_ms, gc_interval_ms, busy_poll_us;
    /* [ops] */
    char http[256]; /* host:port; "" = no metrics over HTTP */
    char http_token_file[256];
    uint64_t slow_op_ms; /* 0 = none is slow */
};

/* Fills out with defaults. */
void config_defaults(struct config *out);
/* Reads the file over the defaults. 0, or -errno with a sentence in why ("FILE:LINE: ..."). */
int config_load(const char *path, struct config *out, char *why, size_t why_bytes);
/* The same over what `config` holds, which is freed if the file is refused. */
int config_load_over(const char *path, struct config *config, char *why, size_t why_bytes);
void config_deinit(struct config *config);
/* Reads a secret from a file: it must be private (secret_file.h), 16..4096 bytes, a trailing
 * newline is dropped. Bytes read, or -errno with a sentence. */
int config_read_secret(const char *path, void *out, size_t out_bytes, char *why, size_t why_bytes);

#endif
