/* SPDX-License-Identifier: Apache-2.0
 *
 * What featured keeps in etcd: keys and values, written and read back. Pure.
 *
 *   /featured/CLUSTER/nodes/NODE             {"incarnation":"HEX","address":"HOST:PORT",
 *                                             "data":"HOST:PORT","capacity":N}
 *   /featured/CLUSTER/samples/STORE/SAMPLE   {"gen":N,"home":"NODE","inc":"HEX","bytes":N,"time":N}
 *                                             and "again":true when it was lost and written again
 *   /featured/CLUSTER/generation             N: the last number of the last block given out
 *   /featured/CLUSTER/history                HEX: a name for what etcd has kept without a break
 *   /featured/CLUSTER/ended/NODE/HEX/STORE/SAMPLE/N   what ended while its home was out of reach:
 *                                             for NODE under incarnation HEX, generation N;
 *                                             "rN" for N: whatever it held when the registration
 *                                             that began at revision N had ended
 *
 * Nodes of different versions share them: a field that is not known is passed over, and "data" that
 * is missing is "address". SAMPLE is percent-encoded. time is Unix milliseconds. "gen" comes first,
 * so that a compare of the value's beginning is one of the generation.
 */
#ifndef FEATURED_DIRECTORY_ETCD_RECORD_H
#define FEATURED_DIRECTORY_ETCD_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "directory/directory.h"
#include "proto/layout.h"

#define ETCD_CLUSTER_BYTES_MAX 64u
/* "/featured/" CLUSTER "/ended/" NODE "/" HEX "/" STORE "/" SAMPLE "/" N, three bytes for each of
 * SAMPLE's */
#define ETCD_KEY_BYTES                                                                             \
    (ETCD_CLUSTER_BYTES_MAX + 2 * LAYOUT_NAME_BYTES_MAX + 3 * LAYOUT_ID_BYTES_MAX + 80)
#define ETCD_VALUE_BYTES   768u
#define ETCD_ADDRESS_BYTES 256u

struct sample_record {
    char store[LAYOUT_NAME_BYTES_MAX + 1], sample_id[LAYOUT_ID_BYTES_MAX + 1];
    char home[LAYOUT_NAME_BYTES_MAX + 1];
    uint64_t generation, incarnation, bytes, unix_ms;
    bool again;
};

struct node_record {
    char node[LAYOUT_NAME_BYTES_MAX + 1];
    char address[ETCD_ADDRESS_BYTES];      /* of messages, host:port; "" = unreachable */
    char data_address[ETCD_ADDRESS_BYTES]; /* of bulk bytes; often the same */
    uint64_t incarnation, capacity_bytes;
};

void etcd_node_key(char out[ETCD_KEY_BYTES], const char *cluster, const char *node);
void etcd_sample_key(char out[ETCD_KEY_BYTES], const char *cluster, const char *store,
                     const char *sample_id);
void etcd_generation_key(char out[ETCD_KEY_BYTES], const char *cluster);
void etcd_history_key(char out[ETCD_KEY_BYTES], const char *cluster);
/* Of this generation's end, for its home to find; generation 0: of whatever it held when that
 * registration had ended. */
void etcd_ended_key(char out[ETCD_KEY_BYTES], const char *cluster,
                    const struct directory_record *record, int64_t registration);
/* The range of all ends kept for one incarnation of a node. */
void etcd_ended_range_of(char begin[ETCD_KEY_BYTES], char end[ETCD_KEY_BYTES], const char *cluster,
                         const char *node, uint64_t incarnation);
/* The range of all keys below "nodes/" or "samples/". */
void etcd_range_of(char begin[ETCD_KEY_BYTES], char end[ETCD_KEY_BYTES], const char *cluster,
                   const char *kind);
/* The range of the records of one store. */
void etcd_store_range_of(char begin[ETCD_KEY_BYTES], char end[ETCD_KEY_BYTES], const char *cluster,
                         const char *store);

void etcd_node_value(char out[ETCD_VALUE_BYTES], const struct node_record *node);
void etcd_sample_value(char out[ETCD_VALUE_BYTES], const struct directory_record *record,
                       uint64_t unix_ms);
/* Two values between which lie exactly the records of this generation. */
void etcd_generation_bounds(char above[32], char below[32], uint64_t generation);

/* 0, or -EINVAL: not one that featured wrote. */
int etcd_node_parse(const char *key, const char *value, struct node_record *out);
int etcd_sample_parse(const char *key, const char *value, struct sample_record *out);
int etcd_generation_parse(const char *value, uint64_t *out);
/* Of an end the key says it all: store, sample_id, home, incarnation, and generation or
 * registration; the other is 0. */
int etcd_ended_parse(const char *key, struct sample_record *out, int64_t *registration);

struct directory_record etcd_sample_view(const struct sample_record *record);

#endif
