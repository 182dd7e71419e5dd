/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "directory/etcd/record.h"

Test(etcd_record, keys_are_percent_encoded_and_come_back) {
    char key[ETCD_KEY_BYTES], value[ETCD_VALUE_BYTES];
    struct directory_record record = {
        .store = "run0", .sample_id = "a/b %\303\244~", .home = "n", .generation = 1};
    struct sample_record back;
    etcd_sample_key(key, "main", record.store, record.sample_id);
    cr_expect_str_eq(key, "/featured/main/samples/run0/a%2Fb%20%25%C3%A4~");
    etcd_sample_value(value, &record, 5);
    cr_assert_eq(etcd_sample_parse(key, value, &back), 0);
    cr_expect_str_eq(back.store, "run0");
    cr_expect_str_eq(back.sample_id, record.sample_id);
}

Test(etcd_record, the_longest_names_fit) {
    char key[ETCD_KEY_BYTES], value[ETCD_VALUE_BYTES], name[65], id[129];
    struct sample_record back;
    memset(name, 'n', 64);
    memset(id, '\377', 128);
    name[64] = id[128] = '\0';
    struct directory_record record = {.store = name,
                                      .sample_id = id,
                                      .home = name,
                                      .generation = INT64_MAX,
                                      .incarnation = UINT64_MAX,
                                      .bytes = INT64_MAX};
    etcd_sample_key(key, name, name, id);
    etcd_sample_value(value, &record, UINT64_C(1) << 60);
    cr_assert_eq(etcd_sample_parse(key, value, &back), 0);
    cr_expect_str_eq(back.sample_id, id);
    cr_expect_str_eq(back.home, name);
    cr_expect_eq(back.generation, INT64_MAX);
    cr_expect_eq(back.incarnation, UINT64_MAX);
    cr_expect_eq(back.bytes, INT64_MAX);
}

Test(etcd_record, a_record_reads_well) {
    char value[ETCD_VALUE_BYTES];
    struct directory_record record = {.store = "run0",
                                      .sample_id = "s",
                                      .home = "node-a",
                                      .generation = 12,
                                      .incarnation = 0xabc,
                                      .bytes = 4096};
    etcd_sample_value(value, &record, 1700000000000);
    cr_expect_str_eq(value, "{\"gen\":12,\"home\":\"node-a\",\"inc\":\"abc\",\"bytes\":4096,"
                            "\"time\":1700000000000}");
}

Test(etcd_record, the_bounds_of_a_generation_hold_its_records_and_no_others) {
    static const uint64_t others[] = {1, 2, 11, 13, 100, 119, 120, 121, 129, 1200, 12000};
    char above[32], below[32], value[ETCD_VALUE_BYTES];
    struct directory_record record = {.store = "run0",
                                      .sample_id = "s",
                                      .home = "node-a",
                                      .generation = 12,
                                      .incarnation = 1,
                                      .bytes = 1};
    etcd_generation_bounds(above, below, 12);
    etcd_sample_value(value, &record, 1);
    cr_expect(strcmp(value, above) > 0 && strcmp(value, below) < 0);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        record.generation = others[i];
        etcd_sample_value(value, &record, 1);
        cr_expect_not(strcmp(value, above) > 0 && strcmp(value, below) < 0, "%s", value);
    }
}

Test(etcd_record, a_node_comes_back) {
    char key[ETCD_KEY_BYTES], value[ETCD_VALUE_BYTES];
    struct node_record node = {"node-a", "[::1]:7400", "10.1.0.1:7400", UINT64_MAX, 5}, back;
    etcd_node_key(key, "main", node.node);
    etcd_node_value(value, &node);
    cr_expect_str_eq(key, "/featured/main/nodes/node-a");
    cr_assert_eq(etcd_node_parse(key, value, &back), 0);
    cr_expect_str_eq(back.node, node.node);
    cr_expect_str_eq(back.address, node.address);
    cr_expect_str_eq(back.data_address, node.data_address);
    cr_expect_eq(back.incarnation, node.incarnation);
    cr_expect_eq(back.capacity_bytes, 5);
}

Test(etcd_record, a_node_of_another_version_is_understood) {
    const char *key = "/featured/c/nodes/n";
    struct node_record node;
    cr_assert_eq(
        etcd_node_parse(key, "{\"incarnation\":\"1\",\"address\":\"h:1\",\"capacity\":2}", &node),
        0);
    cr_expect_str_eq(node.data_address, "h:1", "one address was for both");
    cr_assert_eq(etcd_node_parse(key,
                                 "{\"incarnation\":\"1\",\"rack\":{},\"address\":\"h:1\",\"data\":"
                                 "\"i:2\",\"capacity\":2,\"zone\":7}",
                                 &node),
                 0);
    cr_expect_str_eq(node.data_address, "i:2");
    cr_expect_lt(
        etcd_node_parse(
            key, "{\"incarnation\":\"1\",\"address\":\"h:1\",\"data\":5,\"capacity\":2}", &node),
        0);
}

Test(etcd_record, the_longest_addresses_fit_a_value) {
    struct node_record node = {.node = "n", .incarnation = UINT64_MAX}, back;
    char value[ETCD_VALUE_BYTES];
    memset(node.address, 'a', sizeof node.address - 1);
    memset(node.data_address, 'd', sizeof node.data_address - 1);
    etcd_node_value(value, &node);
    cr_assert_eq(etcd_node_parse("/featured/c/nodes/n", value, &back), 0);
    cr_expect_str_eq(back.data_address, node.data_address);
}

Test(etcd_record, a_range_holds_its_kind_only) {
    char begin[ETCD_KEY_BYTES], end[ETCD_KEY_BYTES], key[ETCD_KEY_BYTES];
    etcd_range_of(begin, end, "main", "samples");
    etcd_sample_key(key, "main", "zzz", "\377");
    cr_expect(strcmp(key, begin) > 0 && strcmp(key, end) < 0);
    etcd_node_key(key, "main", "a");
    cr_expect_lt(strcmp(key, begin), 0);
    etcd_sample_key(key, "main2", "a", "a");
    cr_expect_gt(strcmp(key, end), 0);
}

Test(etcd_record, a_store_is_a_range_of_its_own) {
    char begin[ETCD_KEY_BYTES], end[ETCD_KEY_BYTES], key[ETCD_KEY_BYTES];
    etcd_store_range_of(begin, end, "main", "run");
    etcd_sample_key(key, "main", "run", "s/1");
    cr_expect(strcmp(begin, key) < 0 && strcmp(key, end) < 0);
    etcd_sample_key(key, "main", "run2", "s1");
    cr_expect(strcmp(key, end) >= 0);
    etcd_sample_key(key, "main", "ru", "s1");
    cr_expect(strcmp(key, begin) < 0);
    etcd_sample_key(key, "main", "run-0", "s1");
    cr_expect(strcmp(key, begin) < 0);
}

Test(etcd_record, what_featured_did_not_write_is_refused) {
    struct sample_record sample;
    struct node_record node;
    uint64_t generation;
    const char *good = "{\"gen\":1,\"home\":\"n\",\"inc\":\"1\",\"bytes\":1,\"time\":1}";
    const char *key = "/featured/c/samples/run/s";
    static const char *const keys[] = {
        "",
        "/other/c/samples/run/s",
        "/featured/c/nodes/run/s",
        "/featured/c/samples/run",
        "/featured/c/samples/run/",
        "/featured/c/samples//s",
        "/featured/c/samples/-run/s",
        "/featured/c/samples/run/s%",
        "/featured/c/samples/run/s%2",
        "/featured/c/samples/run/s%zz",
        "/featured/c/samples/run/s%00",
        "/featured/c/samples/run/s/t",
    };
    static const char *const values[] = {
        "",
        "[]",
        "{}",
        "{\"gen\":0,\"home\":\"n\",\"inc\":\"1\",\"bytes\":1,\"time\":1}",
        "{\"gen\":-1,\"home\":\"n\",\"inc\":\"1\",\"bytes\":1,\"time\":1}",
        "{\"gen\":\"1\",\"home\":\"n\",\"inc\":\"1\",\"bytes\":1,\"time\":1}",
        "{\"gen\":1,\"home\":\"n m\",\"inc\":\"1\",\"bytes\":1,\"time\":1}",
        "{\"gen\":1,\"home\":\"n\",\"inc\":1,\"bytes\":1,\"time\":1}",
        "{\"gen\":1,\"home\":\"n\",\"inc\":\"xyz\",\"bytes\":1,\"time\":1}",
        "{\"gen\":1,\"home\":\"n\",\"inc\":\"12345678901234567\",\"bytes\":1,\"time\":1}",
        "{\"gen\":1,\"home\":\"n\",\"inc\":\"1\",\"time\":1}",
    };
    cr_assert_eq(etcd_sample_parse(key, good, &sample), 0);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        cr_expect_lt(etcd_sample_parse(keys[i], good, &sample), 0, "%s", keys[i]);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        cr_expect_lt(etcd_sample_parse(key, values[i], &sample), 0, "%s", values[i]);
    cr_expect_lt(etcd_node_parse("/featured/c/nodes/n", "{}", &node), 0);
    cr_expect_lt(etcd_node_parse("/featured/c/nodes/n",
                                 "{\"incarnation\":\"0\",\"address\":\"\",\"capacity\":1}", &node),
                 0);
    cr_expect_lt(etcd_generation_parse("", &generation), 0);
    cr_expect_lt(etcd_generation_parse("12x", &generation), 0);
    cr_expect_lt(etcd_generation_parse("-1", &generation), 0);
    cr_expect_lt(etcd_generation_parse("99999999999999999999", &generation), 0);
    cr_assert_eq(etcd_generation_parse("18446744073709551615", &generation), 0);
    cr_expect_eq(generation, UINT64_MAX);
}
