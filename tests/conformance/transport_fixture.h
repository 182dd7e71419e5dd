/* SPDX-License-Identifier: Apache-2.0
 *
 * What the transport suite needs to know of an implementation. A further transport: one file with
 * its fixture, and its line in TRANSPORT_CASE.
 */
#ifndef FEATURED_TESTS_TRANSPORT_FIXTURE_H
#define FEATURED_TESTS_TRANSPORT_FIXTURE_H

#include "transport/transport.h"

struct transport_fixture {
    const char *listen_address; /* any port */
    const char *nobody_address; /* where nobody listens */
    void *(*world_new)(void);   /* what carries its transports: a loop, a network */
    int (*transport_new)(void *world, const struct transport_options *options,
                         const struct transport_events *events, void *owner,
                         struct transport **out);
    void (*step)(
        void *world); /* lets something happen; waits a moment for it when nothing is due */
    void (*world_free)(void *world); /* every transport is destroyed by then */
};

extern const struct transport_fixture transport_fixture_tcp, transport_fixture_fake;

struct suite;
void transport_suite_run(const struct transport_fixture *fixture,
                         void (*body)(struct suite *suite));

#define TRANSPORT_CASE(name)                                                                       \
    static void name(struct suite *s);                                                             \
    Test(transport_tcp, name) {                                                                    \
        transport_suite_run(&transport_fixture_tcp, name);                                         \
    }                                                                                              \
    Test(transport_fake, name) {                                                                   \
        transport_suite_run(&transport_fixture_fake, name);                                        \
    }                                                                                              \
    static void name(struct suite *s)

#endif
