/* SPDX-License-Identifier: Apache-2.0
 *
 * Refusals in words: cut, cleaned, told from outages, and with a remedy.
 */
#include <criterion/criterion.h>
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "directory/etcd/endpoints.h"
#include "directory/etcd/json.h"
#include "directory/etcd/words.h"
#include "featurectl/doctor.h"

static const char *words_of(const char *text, char out[ETCD_WORDS_BYTES]) {
    etcd_words(out, text, strlen(text));
    return out;
}

Test(refusal_words, foreign_text_is_one_short_printable_line) {
    char out[ETCD_WORDS_BYTES], *long_text = NULL;
    cr_expect_str_eq(words_of("etcdserver: permission denied", out),
                     "etcdserver: permission denied");
    cr_expect_str_eq(words_of("\r\n  one\ntwo", out), "one");
    cr_expect_str_eq(words_of("\x1b[31mred\x7f\xc3\xa9 ", out), "?[31mred???");
    cr_expect_str_eq(words_of("", out), "");
    cr_assert(asprintf(&long_text, "%0*d", 5000, 7) == 5000);
    cr_expect_eq(strlen(words_of(long_text, out)), ETCD_WORDS_BYTES - 1);
    free(long_text);
}

static enum etcd_result error_of(long status, const char *text, char why[512]) {
    bool unauthorized;
    return etcd_json_error(status, text, strlen(text), &unauthorized, why, 512);
}

Test(refusal_words, what_is_no_etcd_refuses_and_a_proxy_that_fails_does_not) {
    char why[512];
    cr_expect_eq(error_of(404, "<html>\nno", why), ETCD_E_REFUSED);
    cr_expect(strstr(why, "HTTP status 404") && strstr(why, "no error in JSON"), "%s", why);
    cr_expect_eq(error_of(501, "Unsupported method ('POST')", why), ETCD_E_REFUSED);
    cr_expect(strstr(why, "Unsupported method"), "%s", why);
    cr_expect_eq(error_of(502, "bad gateway", why), ETCD_E_UNKNOWN);
    cr_expect_eq(error_of(503, "{\"error\":\"etcdserver: no leader\",\"code\":14}", why),
                 ETCD_E_UNKNOWN);
    cr_expect_eq(
        error_of(403, "{\"error\":\"etcdserver: permission \\u001b[1mdenied\\n\",\"code\":7}", why),
        ETCD_E_REFUSED);
    cr_expect_str_eq(why, "etcdserver: permission ?[1mdenied (HTTP status 403)");
}

Test(refusal_words, a_token_of_an_older_revision_is_asked_for_anew) {
    bool unauthorized = false;
    char why[512];
    static const char text[] =
        "{\"error\":\"etcdserver: revision of auth store is old\",\"code\":3}";
    etcd_json_error(400, text, sizeof text - 1, &unauthorized, why, sizeof why);
    cr_expect(unauthorized);
}

Test(refusal_words, certificates_and_alerts_are_refusals_and_broken_connections_are_not) {
    cr_expect(etcd_words_of_refusal(CURLE_PEER_FAILED_VERIFICATION,
                                    "SSL certificate problem: certificate has expired"));
    cr_expect(etcd_words_of_refusal(
        CURLE_RECV_ERROR, "error:0A000412:SSL routines::sslv3 alert bad certificate, errno 0"));
    cr_expect(etcd_words_of_refusal(CURLE_SSL_CONNECT_ERROR,
                                    "error:0A00010B:SSL routines::wrong version number"));
    cr_expect_not(etcd_words_of_refusal(CURLE_SSL_CONNECT_ERROR, "Connection reset by peer"));
    cr_expect_not(etcd_words_of_refusal(CURLE_COULDNT_CONNECT, "Connection refused"));
    cr_expect_not(etcd_words_of_refusal(CURLE_OPERATION_TIMEDOUT, "Timeout was reached"));
    cr_expect_not(etcd_words_of_refusal(CURLE_GOT_NOTHING, "Empty reply from server"));
}

Test(refusal_words, an_endpoint_that_hangs_up_may_be_of_the_other_scheme) {
    const char *plain = etcd_words_of_hang_up(CURLE_GOT_NOTHING, "http://h:1", false);
    const char *secure = etcd_words_of_hang_up(CURLE_SSL_CONNECT_ERROR, "https://h:1", false);
    const char *after = etcd_words_of_hang_up(CURLE_SEND_ERROR, "https://h:1", true);
    cr_expect(plain && strstr(plain, "https://"));
    cr_expect(secure && strstr(secure, "http://"));
    cr_expect(after && strstr(after, "cert_file"));
    cr_expect_null(etcd_words_of_hang_up(CURLE_COULDNT_CONNECT, "http://h:1", false));
}

Test(refusal_words, known_refusals_come_with_a_remedy) {
    cr_expect(strstr(etcd_words_advice("etcdserver: permission denied"), "/featured/"));
    cr_expect(strstr(etcd_words_advice("mvcc: database space exceeded"), "alarm disarm"));
    cr_expect(strstr(etcd_words_advice("etcdserver: user name is empty"), "username"));
    cr_expect_str_eq(etcd_words_advice("something new"), "");
}

Test(refusal_words, doctor_fails_on_a_refusal_and_warns_of_an_outage) {
    struct doctor_finding finding = {0};
    doctor_judge_directory("etcd", "", &finding);
    cr_expect_eq(finding.verdict, DOCTOR_OK);
    doctor_judge_directory("etcd", "etcd at http://h:1 refuses: permission denied", &finding);
    cr_expect_eq(finding.verdict, DOCTOR_FAIL);
    cr_expect(strstr(finding.found, "permission denied"));
    doctor_judge_directory("etcd", "etcd at http://h:1 does not answer as an etcd does: x",
                           &finding);
    cr_expect_eq(finding.verdict, DOCTOR_FAIL);
    doctor_judge_directory("etcd", "etcd at http://h:1 cannot be used: Connection refused",
                           &finding);
    cr_expect_eq(finding.verdict, DOCTOR_WARN);
}

Test(refusal_words, endpoints_name_no_user) {
    char out[ETCD_ENDPOINTS_MAX][ETCD_URL_BYTES], why[256];
    cr_assert_eq(etcd_endpoints_parse("http://a:1/, https://b:2", out, why, sizeof why), 2);
    cr_expect_str_eq(out[0], "http://a:1");
    cr_expect_str_eq(out[1], "https://b:2");
    cr_expect_lt(etcd_endpoints_parse("http://me:secret@a:1", out, why, sizeof why), 0);
    cr_expect(strstr(why, "password_file") && !strstr(why, "secret@"), "%s", why);
    cr_expect_lt(etcd_endpoints_parse("ftp://a:1", out, why, sizeof why), 0);
    cr_expect_lt(etcd_endpoints_parse(" , ", out, why, sizeof why), 0);
}
