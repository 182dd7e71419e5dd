/* SPDX-License-Identifier: Apache-2.0
 *
 * Why a sample is still there, in words. Pure.
 */
#ifndef FEATURED_CTL_WHY_H
#define FEATURED_CTL_WHY_H

#include "client.pb-c.h"

/* "waits for 1 of 2 consumed releases; read by pid 4312 uid 1000 trainer (12 s)". Names whom it
 * knows (info->holders), else counts. Freed with free(). */
char *why_kept(const Fb__SampleInfo *info, Fb__Policy policy);

#endif
