/* SPDX-License-Identifier: Apache-2.0
 *
 * The codes are those of libcurl; the texts that it hands on are OpenSSL's.
 */
#include "directory/etcd/words.h"

#include <curl/curl.h>
#include <string.h>

/* Foreign text goes into logs, terminals and JSON: one line, no control characters, and a bounded
 * length. */
void etcd_words(char out[ETCD_WORDS_BYTES], const char *text, size_t text_bytes) {
    size_t used = 0;
    while (text_bytes && (*text == '\n' || *text == '\r' || *text == ' ')) {
        text++;
        text_bytes--;
    }
    for (size_t i = 0; i < text_bytes && used + 1 < ETCD_WORDS_BYTES; i++) {
        if (text[i] == '\n' || text[i] == '\r' || text[i] == '\0')
            break;
        out[used++] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    }
    while (used && out[used - 1] == ' ')
        used--;
    out[used] = '\0';
}

/* Alerts by which the other side says no to our certificate, or to have none. With TLS 1.3 they
 * come when the request has been sent; it is not looked at then. */
static bool words_is_alert_of_refusal(const char *words) {
    static const char *const alerts[] = {"certificate",       "unknown ca",    "unknown CA",
                                         "handshake failure", "access denied", "protocol version"};
    const char *alert = strstr(words, "alert");
    for (size_t i = 0; alert && i < sizeof alerts / sizeof *alerts; i++)
        if (strstr(alert, alerts[i]))
            return true;
    return false;
}

/* A connection that just broke in the handshake is not a refusal, though libcurl gives it the same
 * code as one: only OpenSSL's own words show that the other side has answered with something. */
bool etcd_words_of_refusal(int curl_code, const char *words) {
    switch (curl_code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CRL_BADFILE:
        return true;
    case CURLE_SSL_CONNECT_ERROR: /* also when the connection breaks in the handshake */
        return strstr(words, "SSL routines") || strstr(words, "alert");
    default:
        return words_is_alert_of_refusal(words);
    }
}

/* Such an endpoint may be a member that is just starting, or one that speaks the other protocol; so
 * the sentence asks and does not claim. After a finished handshake it is most likely the
 * certificate. */
const char *etcd_words_of_hang_up(int curl_code, const char *endpoint, bool secured) {
    bool is_hang_up = curl_code == CURLE_GOT_NOTHING || curl_code == CURLE_SEND_ERROR ||
                      curl_code == CURLE_RECV_ERROR || curl_code == CURLE_SSL_CONNECT_ERROR;
    if (!is_hang_up)
        return NULL;
    if (strncmp(endpoint, "https", 5) != 0)
        return ETCD_HANGS_UP ": does it speak TLS? Then the endpoint is https://";
    return secured ? "refuses: it hangs up after the TLS handshake: does it want a certificate, "
                     "or another? See [directory] cert_file"
                   : ETCD_HANGS_UP ": does it not speak TLS? Then the endpoint is http://";
}

/* The first that fits counts, so the more exact ones stand before the others. The words are those
 * of etcd 3.4 to 3.6 and of OpenSSL 3; what is not known gets no advice rather than a wrong one. */
const char *etcd_words_advice(const char *words) {
    static const struct {
        const char *words, *advice;
    } known[] = {
        {"permission denied",
         ": give its role readwrite for the prefix /featured/CLUSTER/ ([directory] cluster)"},
        {"user name is empty", ": set [directory] username and password_file"},
        {"authentication is not enabled",
         ": enable authentication in etcd, or remove [directory] username"},
        {"invalid user ID or password", ": see [directory] username and password_file"},
        {"database space exceeded", ": compact and defragment etcd, then etcdctl alarm disarm"},
        {"certificate has expired", ": renew that certificate"},
        {"expired certificate", ": renew [directory] cert_file"},
        {"certificate expired", ": renew [directory] cert_file"},
        {"local issuer certificate",
         ": is [directory] ca_file the authority of etcd's certificate?"},
        {"self-signed certificate",
         ": is [directory] ca_file the authority of etcd's certificate?"},
        {"certificate verify failed",
         ": is [directory] ca_file the authority of etcd's certificate?"},
        {"unknown ca", ": is [directory] cert_file of an authority that etcd trusts?"},
        {"bad certificate", ": etcd wants a certificate that it trusts: [directory] cert_file"},
        {"certificate required", ": etcd wants a certificate: [directory] cert_file and key_file"},
        {"wrong version number", ": it does not speak TLS: an endpoint of http://?"},
        {"HTTP request to an HTTPS server", ": it speaks TLS: an endpoint of https://?"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcasestr(words, known[i].words))
            return known[i].advice;
    return "";
}
