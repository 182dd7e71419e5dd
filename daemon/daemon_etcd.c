/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns the [etcd] part of the configuration into a directory. The password of etcd's user is read
 * from its file here and nowhere else, and is wiped as soon as the client has its own copy.
 */
#include "daemon_etcd.h"

#include <sodium.h>

#include "directory/etcd/etcd.h"

/* A request that etcd has not answered after the first has failed; what reaches no etcd for the
 * second is UNAVAILABLE. The second spans the election of a new leader, 1 to 2 s. */
#define ETCD_REQUEST_TIMEOUT_MS 2000u
#define ETCD_GIVE_UP_MS         5000u
#define ETCD_WRITTEN_KEPT       65536u /* 1 MiB; at 1000 puts a second, samples that live a minute */

/* The password is wiped here; the client keeps what it needs. */
static int daemon_etcd_connect(const struct config *config, uv_loop_t *loop, struct etcd **out,
                               char *why, size_t why_bytes) {
    char password[4097] = "";
    struct etcd_client_options client = {
        .endpoints = config->etcd_endpoints,
        .ca_file = config->etcd_ca_file,
        .cert_file = config->etcd_cert_file,
        .key_file = config->etcd_key_file,
        .username = config->etcd_username,
        .password = password,
    };
    int result = 0;
    if (*config->etcd_password_file)
        result = config_read_secret(config->etcd_password_file, password, sizeof password - 1, why,
                                    why_bytes);
    if (result >= 0)
        result = etcd_client_new(loop, &client, out, why, why_bytes);
    sodium_memzero(password, sizeof password);
    return result;
}

/* A client of etcd, and the directory that speaks through it. The directory owns the client from
 * then on. */
int daemon_etcd_new(const struct config *config, uint64_t incarnation, int64_t unix_offset_ns,
                    uv_loop_t *loop, struct broker *broker, struct directory **out, char *why,
                    size_t why_bytes) {
    struct directory_etcd_options options = {
        .cluster = config->etcd_cluster,
        .node = config->node,
        .incarnation = incarnation,
        .capacity_bytes = config->max_resident_bytes,
        .unix_offset_ns = unix_offset_ns,
        .lease_ttl_s = (uint32_t)((config->lease_ttl_ms + 999) / 1000),
        .batch_max = config->batch_max,
        .batch_delay_ns = config->batch_delay_ms * 1000000ull,
        .request_timeout_ms = ETCD_REQUEST_TIMEOUT_MS,
        .written_kept = ETCD_WRITTEN_KEPT,
        .compare_interval_ns = config->compare_interval_ms * 1000000ull,
        .give_up_ns = ETCD_GIVE_UP_MS * 1000000ull,
        .kept = broker_directory_kept(broker),
    };
    struct etcd *etcd;
    int result = daemon_etcd_connect(config, loop, &etcd, why, why_bytes);
    if (result < 0)
        return result;
    return directory_etcd_new(&options, etcd, &broker_directory_events, broker, out);
}
