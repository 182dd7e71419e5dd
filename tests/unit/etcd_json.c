/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests against the texts that a real etcd 3.4 was seen to understand, and answers it was seen
 * to give. In base64: n = "bg==", v = "dg==".
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/json.h"

static void expect_body(const struct etcd_request *request, const char *expected) {
    char *text = etcd_json_request(request);
    cr_expect_str_eq(text, expected);
    free(text);
}

#define TXN(...) (&(struct etcd_request){.kind = ETCD_TXN, __VA_ARGS__})

/* ---- requests ---- */

/* The gateway ignores unknown fields: one letter more in "compare" and the write is unconditional.
 */
Test(etcd_json, a_guarded_write_says_compare_target_and_result) {
    struct etcd_compare compare = {.key = "n", .target = ETCD_MOD_REVISION, .revision = 7};
    struct etcd_op put = {.kind = ETCD_PUT, .key = "n", .value = "v", .prev_kv = true};
    expect_body(TXN(.compares = &compare, .compare_count = 1, .success = &put, .success_count = 1),
                "{\"compare\":[{\"key\":\"bg==\",\"target\":\"MOD\",\"result\":\"EQUAL\","
                "\"mod_revision\":\"7\"}],\"success\":[{\"request_put\":{\"key\":\"bg==\","
                "\"value\":\"dg==\",\"prev_kv\":true}}],\"failure\":[]}");
}

Test(etcd_json, absence_is_create_revision_0_written_out) {
    struct etcd_compare absent = {.key = "n", .target = ETCD_CREATE_REVISION};
    struct etcd_op put = {.kind = ETCD_PUT, .key = "n", .value = "v", .lease = -5};
    struct etcd_op look = {.kind = ETCD_RANGE, .key = "n"};
    expect_body(TXN(.compares = &absent, .compare_count = 1, .success = &put, .success_count = 1,
                    .failure = &look, .failure_count = 1),
                "{\"compare\":[{\"key\":\"bg==\",\"target\":\"CREATE\",\"result\":\"EQUAL\","
                "\"create_revision\":\"0\"}],\"success\":[{\"request_put\":{\"key\":\"bg==\","
                "\"value\":\"dg==\",\"lease\":\"-5\"}}],\"failure\":[{\"request_range\":{\"key\":"
                "\"bg==\"}}]}");
}

Test(etcd_json, a_conditional_delete_is_a_nested_transaction) {
    struct etcd_compare bounds[] = {
        {.key = "n", .target = ETCD_VALUE, .relation = ETCD_GREATER, .value = "v"},
        {.key = "n", .target = ETCD_VALUE, .relation = ETCD_LESS, .value = "w"}};
    struct etcd_op op = {
        .kind = ETCD_DELETE_IF, .key = "n", .compares = bounds, .compare_count = 2};
    expect_body(TXN(.success = &op, .success_count = 1),
                "{\"compare\":[],\"success\":[{\"request_txn\":{\"compare\":[{\"key\":\"bg==\","
                "\"target\":\"VALUE\",\"result\":\"GREATER\",\"value\":\"dg==\"},{\"key\":\"bg==\","
                "\"target\":\"VALUE\",\"result\":\"LESS\",\"value\":\"dw==\"}],\"success\":[{"
                "\"request_delete_range\":{\"key\":\"bg==\"}}]}}],\"failure\":[]}");
}

Test(etcd_json, a_conditional_put_is_a_nested_transaction) {
    struct etcd_compare absent = {.key = "n", .target = ETCD_CREATE_REVISION};
    struct etcd_op op = {
        .kind = ETCD_PUT_IF, .key = "n", .value = "v", .compares = &absent, .compare_count = 1};
    expect_body(TXN(.success = &op, .success_count = 1),
                "{\"compare\":[],\"success\":[{\"request_txn\":{\"compare\":[{\"key\":\"bg==\","
                "\"target\":\"CREATE\",\"result\":\"EQUAL\",\"create_revision\":\"0\"}],"
                "\"success\":[{\"request_put\":{\"key\":\"bg==\",\"value\":\"dg==\"}}]}}],"
                "\"failure\":[]}");
}

Test(etcd_json, reads_leases_watches_and_passwords) {
    struct etcd_request read = {.kind = ETCD_READ,
                                .read = {.key = "n", .range_end = "v", .limit = 3, .revision = 9}};
    expect_body(&read, "{\"key\":\"bg==\",\"range_end\":\"dg==\",\"limit\":\"3\","
                       "\"revision\":\"9\"}");
    expect_body(&(struct etcd_request){.kind = ETCD_LEASE_GRANT, .ttl_s = 10}, "{\"TTL\":\"10\"}");
    expect_body(&(struct etcd_request){.kind = ETCD_LEASE_KEEP_ALIVE, .lease = INT64_MAX},
                "{\"ID\":\"9223372036854775807\"}");
    expect_body(&(struct etcd_request){.kind = ETCD_LEASE_REVOKE, .lease = 1}, "{\"ID\":\"1\"}");
    struct etcd_request login = {
        .kind = ETCD_AUTHENTICATE, .name = "u", .password = "quote \" and \\"};
    expect_body(&login, "{\"name\":\"u\",\"password\":\"quote \\\" and \\\\\"}");
    char *watch = etcd_json_watch("n", "v", 4);
    cr_expect_str_eq(watch, "{\"create_request\":{\"key\":\"bg==\",\"range_end\":\"dg==\","
                            "\"start_revision\":\"4\"}}");
    free(watch);
    cr_expect_str_eq(etcd_json_path(ETCD_TXN), "kv/txn");
    cr_expect_str_eq(etcd_json_path(ETCD_READ), "kv/range");
    cr_expect_str_eq(etcd_json_path(ETCD_LEASE_GRANT), "lease/grant");
    cr_expect_str_eq(etcd_json_path(ETCD_LEASE_KEEP_ALIVE), "lease/keepalive");
    cr_expect_str_eq(etcd_json_path(ETCD_LEASE_REVOKE), "lease/revoke");
    cr_expect_str_eq(etcd_json_path(ETCD_AUTHENTICATE), "auth/authenticate");
}

Test(etcd_json, long_keys_are_one_base64_text) {
    char key[1001], *text;
    struct etcd_answer *answer;
    char echo[4096], why[128];
    memset(key, 'k', 1000);
    key[1000] = '\0';
    text = etcd_json_request(&(struct etcd_request){.kind = ETCD_READ, .read = {.key = key}});
    text[strlen(text) - 1] = '\0';
    snprintf(echo, sizeof echo, "{\"header\":{},\"kvs\":[%s}]}", text);
    answer = etcd_json_answer(ETCD_READ, echo, strlen(echo), why, sizeof why);
    cr_assert_not_null(answer, "%s", why);
    cr_expect_str_eq(answer->kvs[0].key, key);
    etcd_json_answer_free(answer);
    free(text);
}

/* ---- answers ---- */

static struct etcd_answer *read_good(enum etcd_request_kind kind, const char *text) {
    char why[128] = "";
    struct etcd_answer *answer = etcd_json_answer(kind, text, strlen(text), why, sizeof why);
    cr_assert_not_null(answer, "%s", why);
    return answer;
}

static void refuse(enum etcd_request_kind kind, const char *text, const char *word) {
    char why[128] = "";
    cr_expect_null(etcd_json_answer(kind, text, strlen(text), why, sizeof why), "%s", text);
    cr_expect_not_null(strstr(why, word), "%s: %s", text, why);
}

#define HEADER "\"header\":{\"cluster_id\":\"3\",\"revision\":\"42\",\"raft_term\":\"2\"}"

Test(etcd_json, a_failed_transaction_is_an_answer_without_succeeded) {
    struct etcd_answer *answer =
        read_good(ETCD_TXN, "{" HEADER ",\"responses\":[{\"response_range\":{\"header\":{"
                            "\"revision\":\"42\"},\"kvs\":[{\"key\":\"bg==\",\"create_revision\":"
                            "\"2\",\"mod_revision\":\"3\",\"version\":\"2\",\"value\":\"dg==\","
                            "\"lease\":\"-7\"}],\"count\":\"1\"}}]}");
    cr_expect_not(answer->succeeded);
    cr_expect_eq(answer->revision, 42);
    cr_assert_eq(answer->op_count, 1);
    cr_assert_eq(answer->ops[0].kv_count, 1);
    cr_expect_str_eq(answer->kvs[0].key, "n");
    cr_expect_str_eq(answer->kvs[0].value, "v");
    cr_expect_eq(answer->kvs[0].create_revision, 2);
    cr_expect_eq(answer->kvs[0].mod_revision, 3);
    cr_expect_eq(answer->kvs[0].lease, -7);
    etcd_json_answer_free(answer);
    answer = read_good(ETCD_TXN, "{" HEADER "}");
    cr_expect_not(answer->succeeded);
    cr_expect_eq(answer->op_count, 0);
    etcd_json_answer_free(answer);
}

Test(etcd_json, each_operation_has_its_own_part_of_the_answer) {
    struct etcd_answer *answer = read_good(
        ETCD_TXN,
        "{" HEADER ",\"succeeded\":true,\"responses\":[{\"response_put\":{\"header\":{}}},"
        "{\"response_put\":{\"header\":{},\"prev_kv\":{\"key\":\"bg==\",\"value\":\"dg==\"}}},"
        "{\"response_txn\":{\"header\":{}}},"
        "{\"response_txn\":{\"header\":{},\"succeeded\":true,\"responses\":[{}]}},"
        "{\"response_range\":{\"header\":{}}},"
        "{\"response_delete_range\":{\"header\":{},\"deleted\":\"1\"}}]}");
    cr_expect(answer->succeeded);
    cr_assert_eq(answer->op_count, 6);
    cr_expect_eq(answer->ops[0].kv_count, 0);
    cr_expect_eq(answer->ops[1].kv_count, 1);
    cr_expect_eq(answer->ops[1].kv_first, 0);
    cr_expect_not(answer->ops[2].succeeded);
    cr_expect(answer->ops[3].succeeded);
    cr_expect_eq(answer->ops[4].kv_count, 0);
    cr_expect_eq(answer->ops[5].deleted, 1);
    etcd_json_answer_free(answer);
}

Test(etcd_json, a_keep_alive_without_TTL_is_a_dead_lease) {
    struct etcd_answer *answer =
        read_good(ETCD_LEASE_KEEP_ALIVE, "{\"result\":{" HEADER ",\"ID\":\"123\"}}");
    cr_expect_eq(answer->lease, 123);
    cr_expect_eq(answer->ttl_s, 0);
    etcd_json_answer_free(answer);
    answer =
        read_good(ETCD_LEASE_KEEP_ALIVE, "{\"result\":{" HEADER ",\"ID\":\"123\",\"TTL\":\"10\"}}");
    cr_expect_eq(answer->ttl_s, 10);
    etcd_json_answer_free(answer);
    refuse(ETCD_LEASE_KEEP_ALIVE, "{" HEADER ",\"ID\":\"123\",\"TTL\":\"10\"}", "result");
    refuse(ETCD_LEASE_KEEP_ALIVE, "{\"error\":{\"grpc_code\":14}}", "result");
}

Test(etcd_json, leases_tokens_and_pages) {
    struct etcd_answer *answer =
        read_good(ETCD_LEASE_GRANT, "{" HEADER ",\"ID\":\"9223372036854775807\",\"TTL\":\"5\"}");
    cr_expect_eq(answer->lease, INT64_MAX);
    cr_expect_eq(answer->ttl_s, 5);
    etcd_json_answer_free(answer);
    answer = read_good(ETCD_AUTHENTICATE, "{" HEADER ",\"token\":\"abc.17\"}");
    cr_expect_str_eq(answer->token, "abc.17");
    etcd_json_answer_free(answer);
    answer = read_good(ETCD_READ, "{" HEADER ",\"kvs\":[{\"key\":\"bg==\"},{\"key\":\"dg==\"}],"
                                  "\"more\":true,\"count\":\"3\"}");
    cr_expect(answer->more);
    cr_assert_eq(answer->kv_count, 2);
    cr_expect_str_eq(answer->kvs[1].key, "v");
    cr_expect_str_eq(answer->kvs[1].value, "", "proto3 leaves an empty value out");
    etcd_json_answer_free(answer);
    answer = read_good(ETCD_READ, "{" HEADER "}");
    cr_expect_eq(answer->kv_count, 0);
    etcd_json_answer_free(answer);
}

Test(etcd_json, what_is_not_an_answer_of_etcd_is_refused) {
    refuse(ETCD_TXN, "", "not JSON");
    refuse(ETCD_TXN, "[]", "not JSON");
    refuse(ETCD_TXN, "{\"succeeded\":true", "not JSON");
    refuse(ETCD_TXN, "{\"succeeded\":true}", "header");
    refuse(ETCD_TXN, "{\"header\":{\"revision\":42}}", "revision");
    refuse(ETCD_TXN, "{\"header\":{\"revision\":\"4x\"}}", "revision");
    refuse(ETCD_TXN, "{\"header\":{\"revision\":\"99999999999999999999\"}}", "revision");
    refuse(ETCD_TXN, "{" HEADER ",\"succeeded\":\"true\"}", "succeeded");
    refuse(ETCD_TXN, "{" HEADER ",\"responses\":{}}", "responses");
    refuse(ETCD_TXN, "{" HEADER ",\"responses\":[{\"response_new\":{}}]}", "unknown kind");
    refuse(ETCD_READ, "{" HEADER ",\"kvs\":[{\"value\":\"dg==\"}]}", "without a key");
    refuse(ETCD_READ, "{" HEADER ",\"kvs\":[{\"key\":\"b\"}]}", "base64");
    refuse(ETCD_READ, "{" HEADER ",\"kvs\":[{\"key\":7}]}", "base64");
    refuse(ETCD_LEASE_GRANT, "{" HEADER ",\"TTL\":\"5\"}", "ID");
    refuse(ETCD_AUTHENTICATE, "{" HEADER "}", "token");
}

/* ---- errors ---- */

static enum etcd_result error_of(long status, const char *text, bool *unauthorized) {
    char why[256];
    return etcd_json_error(status, text, strlen(text), unauthorized, why, sizeof why);
}

Test(etcd_json, errors_say_whether_it_may_have_been_done) {
    bool unauthorized;
    cr_expect_eq(error_of(400,
                          "{\"error\":\"etcdserver: duplicate key given in txn request\","
                          "\"code\":3}Grpc-Trailer-Content-Type: application/grpc",
                          &unauthorized),
                 ETCD_E_REFUSED);
    cr_expect_not(unauthorized);
    cr_expect_eq(error_of(400,
                          "{\"error\":\"etcdserver: mvcc: required revision has been "
                          "compacted\",\"code\":11}",
                          &unauthorized),
                 ETCD_E_COMPACTED);
    cr_expect_eq(
        error_of(503, "{\"error\":\"etcdserver: request timed out\",\"code\":14}", &unauthorized),
        ETCD_E_UNKNOWN);
    cr_expect_eq(error_of(502, "<html>bad gateway</html>", &unauthorized), ETCD_E_UNKNOWN);
    error_of(401, "{\"error\":\"etcdserver: invalid auth token\",\"code\":16}", &unauthorized);
    cr_expect(unauthorized);
    error_of(400, "{\"error\":\"etcdserver: user name is empty\",\"code\":3}", &unauthorized);
    cr_expect(unauthorized, "no token was sent, and auth has been switched on");
}

/* ---- watch ---- */

Test(etcd_json, a_watch_at_a_compacted_revision_ends_with_what_is_left) {
    struct etcd_watch_message message;
    struct etcd_answer *keep;
    const char *line = "{\"result\":{" HEADER ",\"canceled\":true,\"compact_revision\":\"40\"}}";
    cr_assert_eq(etcd_json_watch_line(line, strlen(line), &message, &keep), 0);
    cr_expect(message.ended);
    cr_expect_eq(message.compact_revision, 40);
    cr_expect_eq(message.event_count, 0);
    etcd_json_answer_free(keep);
}

Test(etcd_json, watch_events_are_puts_unless_they_say_DELETE) {
    struct etcd_watch_message message;
    struct etcd_answer *keep;
    const char *line =
        "{\"result\":{" HEADER ",\"events\":[{\"kv\":{\"key\":\"bg==\",\"value\":\"dg==\","
        "\"mod_revision\":\"41\"}},{\"type\":\"DELETE\",\"kv\":{\"key\":\"bg==\","
        "\"mod_revision\":\"42\"}}]}}";
    cr_assert_eq(etcd_json_watch_line(line, strlen(line), &message, &keep), 0);
    cr_expect_not(message.ended);
    cr_expect_eq(message.revision, 42);
    cr_assert_eq(message.event_count, 2);
    cr_expect_not(message.events[0].deleted);
    cr_expect_str_eq(message.events[0].kv.value, "v");
    cr_expect(message.events[1].deleted);
    cr_expect_str_eq(message.events[1].kv.key, "n");
    cr_expect_eq(message.events[1].kv.mod_revision, 42);
    etcd_json_answer_free(keep);
    cr_expect_lt(etcd_json_watch_line("{\"error\":{}}", 12, &message, &keep), 0);
}
