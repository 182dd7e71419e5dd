/* SPDX-License-Identifier: Apache-2.0
 *
 * Of a file with several certificates the first must be one and be valid, for it is the one that is
 * shown; of a ca_file all are looked at, and one that is valid will do.
 */
#include "directory/etcd/certificates.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "directory/etcd/words.h"

struct sentence {
    char *text;
    size_t bytes;
};

static int certificates_refuse(struct sentence why, const char *key, const char *path,
                               const char *wrong) {
    snprintf(why.text, why.bytes, "[directory] %s = %s: %s", key, path, wrong);
    ERR_clear_error();
    return -EINVAL;
}

/* A key with a passphrase cannot be used: nobody is there to type it. */
static int certificates_no_passphrase(char *out, int out_bytes, int writes, void *context) {
    (void)out, (void)out_bytes, (void)writes, (void)context;
    return -1;
}

static void certificates_print_time(const ASN1_TIME *time, char out[64]) {
    BIO *bio = BIO_new(BIO_s_mem());
    int bytes = 0;
    if (bio && ASN1_TIME_print(bio, time))
        bytes = BIO_read(bio, out, 63);
    out[bytes > 0 ? bytes : 0] = '\0';
    BIO_free(bio);
}

/* wrong: "" when it is valid now. OpenSSL's comparison returns 0 on an error, such as a date that
 * it cannot read. Such a date counts as good here, and TLS itself decides later. */
static void certificates_judge(const X509 *certificate, char wrong[512]) {
    char subject[256], clean[ETCD_WORDS_BYTES], when[64];
    bool early = X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0;
    bool late = X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0;
    X509_NAME_oneline(X509_get_subject_name(certificate), subject, sizeof subject);
    etcd_words(clean, subject, strlen(subject));
    certificates_print_time(
        late ? X509_get0_notAfter(certificate) : X509_get0_notBefore(certificate), when);
    *wrong = '\0';
    if (early || late)
        snprintf(wrong, 512, "the certificate of %s %s %s", clean,
                 late ? "expired on" : "is not valid before", when);
}

/* any: one valid certificate will do, else the first must be. */
static int certificates_check_certificate(const char *key, const char *path, bool any,
                                          X509 **first_out, struct sentence why) {
    char wrong[512] = "holds no certificate in PEM";
    FILE *file = fopen(path, "re");
    if (!file)
        return certificates_refuse(why, key, path, strerror(errno));
    X509 *certificate;
    bool good = false;
    for (bool first = true;
         !good && (first || any) &&
         (certificate = PEM_read_X509(file, NULL, certificates_no_passphrase, NULL));
         first = false) {
        certificates_judge(certificate, wrong);
        good = !*wrong;
        if (first && first_out)
            *first_out = certificate;
        else
            X509_free(certificate);
    }
    fclose(file);
    ERR_clear_error();
    return good ? 0 : certificates_refuse(why, key, path, wrong);
}

/* The two files are compared because a pair that does not belong together fails only when a
 * connection is made, and then with a message of OpenSSL's that names neither file. */
static int certificates_check_key(const struct etcd_client_options *options, X509 *certificate,
                                  struct sentence why) {
    FILE *file = fopen(options->key_file, "re");
    if (!file)
        return certificates_refuse(why, "key_file", options->key_file, strerror(errno));
    EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, certificates_no_passphrase, NULL);
    fclose(file);
    int result = 0;
    if (!key)
        result = certificates_refuse(why, "key_file", options->key_file,
                                     "holds no private key in PEM, or one with a passphrase");
    else if (X509_check_private_key(certificate, key) != 1)
        result = certificates_refuse(why, "key_file", options->key_file,
                                     "is not the key of the certificate in cert_file");
    EVP_PKEY_free(key);
    ERR_clear_error();
    return result;
}

int etcd_certificates_check(const struct etcd_client_options *options, char *why,
                            size_t why_bytes) {
    struct sentence sentence = {why, why_bytes};
    X509 *certificate = NULL;
    int result = 0;
    if (options->ca_file && *options->ca_file)
        result = certificates_check_certificate("ca_file", options->ca_file, true, NULL, sentence);
    if (!result && options->cert_file && *options->cert_file)
        result = certificates_check_certificate("cert_file", options->cert_file, false,
                                                &certificate, sentence);
    if (!result && certificate)
        result = certificates_check_key(options, certificate, sentence);
    X509_free(certificate);
    return result;
}
