/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of a cluster that etcd adds: its members, the proxies before it and before the nodes,
 * and what the brokers are told about it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/checks.h"
#include "support/cluster.h"

#define ETCD_CLUSTER "test"
#define SETTLE_MS    60000u

void cluster_etcd_start(struct cluster *cluster, const struct cluster_options *options) {
    CHECK(!options->proxied || options->etcd_members == 1, "one proxy stands before one member");
    cluster->lease_ttl_ms =
        options->lease_ttl_ms != 0 ? options->lease_ttl_ms : CLUSTER_TTL_LONG_MS;
    etcd_server_start(&cluster->etcd, options->etcd_members, false);
    char etcd[64];
    snprintf(etcd, sizeof etcd, "%s:%u", cluster->etcd.members[0].host,
             cluster->etcd.members[0].client_port);
    for (uint32_t i = 0; i < cluster->count && options->proxied; i++) {
        proxy_start(&cluster->proxies[i].etcd, etcd);
        proxy_start(&cluster->proxies[i].peers, cluster->nodes[i].address);
    }
    for (uint32_t i = 0; i < cluster->count && options->data_apart; i++)
        proxy_start(&cluster->proxies[i].data, cluster->nodes[i].address);
    for (uint32_t i = 0; i < options->etcd_members && options->etcd_late; i++)
        etcd_server_kill(&cluster->etcd, i);
}

void cluster_etcd_configure(struct cluster *cluster, uint32_t index,
                            const struct cluster_options *options) {
    const struct cluster_proxies *proxies = &cluster->proxies[index];
    struct node *node = &cluster->nodes[index];
    char endpoints[256], text[512];
    if (options->proxied)
        snprintf(endpoints, sizeof endpoints, "http://%s", proxies->etcd.address);
    else
        etcd_server_endpoints(&cluster->etcd, endpoints);
    snprintf(text, sizeof text,
             "[directory]\nkind = etcd\nendpoints = %s\ncluster = " ETCD_CLUSTER
             "\nlease_ttl = %ums\n",
             endpoints, cluster->lease_ttl_ms);
    config_text_add(&node->ini, text, cluster->directory);
    snprintf(text, sizeof text, "[peers]\nadvertise = %s\n", proxies->peers.address);
    config_text_add(&node->ini, options->proxied ? text : NULL, cluster->directory);
    snprintf(text, sizeof text, "[peers]\ndata_address = %s\n", proxies->data.address);
    config_text_add(&node->ini, options->data_apart ? text : NULL, cluster->directory);
}

void cluster_etcd_stop(struct cluster *cluster) {
    for (uint32_t i = 0; i < cluster->count; i++) {
        proxy_stop(&cluster->proxies[i].etcd);
        proxy_stop(&cluster->proxies[i].peers);
        proxy_stop(&cluster->proxies[i].data);
    }
    etcd_server_stop(&cluster->etcd);
}

static char *list(struct cluster *cluster, const char *prefix) {
    char key[128];
    snprintf(key, sizeof key, "/featured/" ETCD_CLUSTER "/%s", prefix);
    return etcd_server_ctl(&cluster->etcd, (const char *[]){"get", "--prefix", key, NULL});
}

uint32_t cluster_etcd_count(struct cluster *cluster, const char *prefix) {
    static const char key[] = "/featured/" ETCD_CLUSTER "/";
    uint32_t count = 0;
    char *keys = list(cluster, prefix);
    for (const char *at = keys; (at = strstr(at, key)) != NULL; at += strlen(key))
        count++;
    free(keys);
    return count;
}

void cluster_etcd_await_no_samples(struct cluster *cluster) {
    uint64_t end_ms = check_now_ms() + SETTLE_MS;
    for (bool none = false; !none; check_pause(10)) {
        char *left = list(cluster, "samples/");
        none = *left == '\0';
        CHECK(none || check_now_ms() < end_ms, "etcd still has %s", left);
        free(left);
    }
}

void cluster_etcd_await_nodes(struct cluster *cluster, uint32_t nodes) {
    WAIT_UNTIL(cluster_etcd_count(cluster, "nodes/") == nodes, SETTLE_MS);
}

void cluster_etcd_await_fenced(struct cluster *cluster, uint32_t node) {
    char key[16];
    snprintf(key, sizeof key, "nodes/%s", cluster->nodes[node].name);
    WAIT_UNTIL(cluster_etcd_count(cluster, key) == 0, SETTLE_MS);
}
