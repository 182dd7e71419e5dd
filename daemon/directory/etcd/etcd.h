/* SPDX-License-Identifier: Apache-2.0
 *
 * The directory kept in etcd, for whoever makes one (daemon.c, --check-config, tests): membership
 * under a lease, one record per sample, generation numbers from a shared counter.
 *
 * Two halves meet at `struct etcd` (gateway.h), which is what may be asked of an etcd cluster:
 *   - client.c speaks to real etcd members over HTTP; multi.c drives libcurl on a libuv loop,
 *     json_*.c write and read the gateway's texts, words.c makes etcd's complaints fit for people.
 *   - directory.c and its parts decide what is asked and what an answer means. They are a pure
 *     state machine: a part acts in its _tick() alone, on what the callbacks of its requests have
 *     noted in the state (state.h); time is the tick's argument (CLOCK_BOOTTIME). The simulator of
 *     clusters (tests/model) runs this half over an etcd made of memory.
 *
 * The parts, in the order of a tick: join.c (our own record and its lease), history.c (is this
 * still the etcd that we knew?), own.c (what the index says of us), members.c (the other nodes),
 * write.c (records of samples), locate.c, generations.c, ended.c (ends kept for nodes out of
 * reach), audit.c (the index as a whole), trouble.c (what etcd refuses). What several of them need
 * is in state.c.
 *
 * Circle: history.c, write.c: each write compares the name of the history, so that a compare that
 * failed may be how this node learns that etcd has another history than before; and another history
 * voids the writes that are under way, at once, before the next answer of etcd is looked at.
 */
#ifndef FEATURED_DIRECTORY_ETCD_ETCD_H
#define FEATURED_DIRECTORY_ETCD_ETCD_H

#include "directory/directory.h"

struct etcd; /* what may be asked of an etcd cluster: gateway.h */
struct uv_loop_s;

#define BATCH_OPS_MAX 120u /* of etcd's 128: nested transactions count against the rest */

/* ---- an etcd cluster ---- */

/* Copied. "" = none. */
struct etcd_client_options {
    const char *endpoints; /* http[s]://host:port, separated by blanks or commas */
    const char *ca_file, *cert_file, *key_file;
    const char *username, *password;
};

/* A client of real etcd members. Nothing in it blocks. Requests go to one endpoint as long as that
 * one answers, then to the next. 0 or -errno with a sentence. */
int etcd_client_new(struct uv_loop_s *loop, const struct etcd_client_options *options,
                    struct etcd **out, char *why, size_t why_bytes);

/* Would etcd take what a broker with this configuration asks of it? For featured --check-config:
 * blocks, for a bounded time, and changes nothing in etcd. Looks at the certificate files, then
 * asks each endpoint. 0, with a sentence in `warning` when an endpoint has not answered; or -errno
 * with a sentence: a file is no good, or an endpoint refuses. */
int etcd_check(const struct etcd_client_options *options, const char *cluster, const char *node,
               char *why, size_t why_bytes, char *warning, size_t warning_bytes);

/* ---- the directory ---- */

struct directory_etcd_options {
    const char *cluster, *node;
    uint64_t incarnation, capacity_bytes;
    int64_t unix_offset_ns;  /* CLOCK_REALTIME - CLOCK_BOOTTIME */
    uint32_t lease_ttl_s;    /* ETCD_LEASE_TTL_MIN or more */
    uint32_t batch_max;      /* samples per transaction, 1 to BATCH_OPS_MAX */
    uint64_t batch_delay_ns; /* before a transaction is begun beside one that is under way */
    uint32_t request_timeout_ms;
    uint32_t written_kept;        /* publishes whose retires are cheap; above 0, 16 bytes each */
    uint64_t compare_interval_ns; /* between readings of all that the index says of us; 0 = none */
    uint64_t give_up_ns; /* after which a publish or locate that reaches nobody is UNAVAILABLE */
    /* NULL: nothing outlives this process. Else, when it says that this incarnation was a member,
     * the directory begins as one that was fenced: it compares before anything is served. */
    struct directory_kept *kept;
};

/* Strings are copied. etcd: the directory's from here on, also on failure. */
int directory_etcd_new(const struct directory_etcd_options *options, struct etcd *etcd,
                       const struct directory_events *events, void *owner, struct directory **out);
/* Where the other nodes reach this one, host:port: by messages, and for its bytes if that is
 * another place ("" = the same); before start(). Not set: they do not. */
void directory_etcd_set_address(struct directory *d, const char *address, const char *data_address);

#endif
