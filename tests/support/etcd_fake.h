/* SPDX-License-Identifier: Apache-2.0
 *
 * An etcd in one process, for many clients, behind the interface of etcd.h: keys with revisions,
 * leases, transactions, watches, compaction. Whatever is asked arrives after a while, takes effect,
 * and is answered after another; the caller brings the clock and steps through it. Deterministic:
 * the same seed and calls give the same history.
 */
#ifndef FEATURED_TESTS_ETCD_FAKE_H
#define FEATURED_TESTS_ETCD_FAKE_H

#include "directory/etcd/gateway.h"

struct fake_etcd;

struct fake_etcd *fake_etcd_new(uint64_t seed, uint64_t delay_ns_min, uint64_t delay_ns_max);
/* After every client was destroyed. */
void fake_etcd_free(struct fake_etcd *server);
/* When the next thing happens; UINT64_MAX = nothing without a call. */
uint64_t fake_etcd_next_ns(const struct fake_etcd *server);
/* Lets one thing happen that is due by now_ns, if there is one. */
void fake_etcd_step(struct fake_etcd *server, uint64_t now_ns);
/* The clock, for what is asked from here on. */
void fake_etcd_set_time(struct fake_etcd *server, uint64_t now_ns);
/* What was written after that revision, oldest first; value NULL = deleted, current: it stands. */
typedef void (*fake_etcd_write_fn)(void *context, const struct etcd_kv *kv, bool current);
void fake_etcd_each(const struct fake_etcd *server, int64_t revision, fake_etcd_write_fn fn,
                    void *context);
int64_t fake_etcd_revision(const struct fake_etcd *server);
/* Keys there are that begin so. */
size_t fake_etcd_count(const struct fake_etcd *server, const char *prefix);

/* woken(owner) before each callback. */
struct etcd *etcd_fake_new(struct fake_etcd *server, void (*woken)(void *owner), void *owner);

/* ---- faults ---- */
/* Cut off: what is asked is refused at once or lost, what is on its way is lost, watches stand
 * still and some of them end. */
void etcd_fake_cut(struct etcd *etcd, bool cut);
/* A frozen client (SIGSTOP) gets no callbacks until it thaws. */
void etcd_fake_freeze(struct etcd *etcd, bool frozen);
/* Its process dies: nothing it asks from here on is sent, and its lease is not given back. */
void etcd_fake_kill(struct etcd *etcd);
/* So many answers in a hundred are lost, or their requests take effect long after the client gave
 * up. */
void fake_etcd_set_vague(struct fake_etcd *server, unsigned percent);
/* Forgets all revisions but the last few. */
void fake_etcd_compact(struct fake_etcd *server);
/* Restored from a backup that was made at this revision (1 = emptied): everything since is as if it
 * had never been. Watches end, and what is under way is lost. */
void fake_etcd_restore(struct fake_etcd *server, int64_t revision);
/* Written by somebody else; value NULL: deleted, if it is there. */
void fake_etcd_write(struct fake_etcd *server, const char *key, const char *value);
/* One of the keys that begin so; NULL = there is none. */
const char *fake_etcd_any(const struct fake_etcd *server, const char *prefix, unsigned pick);

#endif
