/* SPDX-License-Identifier: Apache-2.0
 *
 * Why a sample is still there, in words. Pure.
 */
#ifndef FEATURED_CTL_WHY_H
#define FEATURED_CTL_WHY_H

#include <jansson.h>

#include "client.pb-c.h"

/* "waits for 1 of 2 consumed releases; read by pid 4312 uid 1000 trainer (12 s)". Names whom it
 * knows (info->holders), else counts. Freed with free(). */
char *why_kept(const Fb__SampleInfo *info, Fb__Policy policy);

/* Who holds it, as far as info->holders says: "session 3 pid 4312 uid 0 trainer (12 s), node b (3
 * s)", to be freed with free(); "" = nobody. For programs: a list. */
char *why_holders(const Fb__SampleInfo *info);
json_t *why_holders_json(const Fb__SampleInfo *info);

#endif
