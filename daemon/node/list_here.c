/* SPDX-License-Identifier: Apache-2.0
 *
 * Pages of the samples that this node holds. A page is bounded in items, bytes and slots that are
 * looked at, so that a large store never makes an answer that fits no frame, or a long turn of the
 * loop.
 */
#include <stdlib.h>
#include <string.h>

#include "node/knowledge.h"

#define PAGE_ITEMS_MAX 256u
#define PAGE_BYTES_MAX 49152u /* half of what a frame has room for: who holds what comes on top */
/* A step of store_list_next() is one sample, or up to 4096 slots without one: such a step counts as
 * much as 64 samples. */
#define PAGE_STEPS_MAX 4096u
#define EMPTY_STEPS    64u

const struct space *list_space(const struct broker *broker, const char *name, uint64_t cursor) {
    for (uint64_t i = cursor >> LIST_SPACE_SHIFT; i < broker->space_end; i++)
        if (broker->spaces[i].used && !strcmp(broker->spaces[i].name, name))
            return &broker->spaces[i];
    return NULL;
}

uint64_t list_onward(const struct broker *broker, const struct space *space, uint64_t at,
                     bool alone) {
    uint64_t behind = (uint64_t)(space->index + 1) << LIST_SPACE_SHIFT;
    const struct space *next = alone ? NULL : list_space(broker, space->name, behind);
    if (at)
        return (uint64_t)space->index << LIST_SPACE_SHIFT | at;
    return next ? (uint64_t)next->index << LIST_SPACE_SHIFT : 0;
}

/* Unless all states are asked for, a listing shows what can be got and is at home here: each sample
 * of the cluster once. */
static bool list_is_wanted(const Fb__List *asked, const struct store_info *info) {
    if (info->state == STORE_FREE || strncmp(info->sample_id, asked->prefix, strlen(asked->prefix)))
        return false;
    return asked->all_states || (info->state == STORE_RESIDENT && !info->landing);
}

/* *at: the place in the store where the page begins, then where the next one goes on; 0: this was
 * the last one. False: out of memory. */
static bool list_fill(const struct broker *broker, const struct space *space, const Fb__List *asked,
                      Fb__ListReply *page, uint64_t *at) {
    uint32_t limit = asked->limit && asked->limit < PAGE_ITEMS_MAX ? asked->limit : PAGE_ITEMS_MAX;
    size_t bytes = 0;
    for (uint32_t steps = 0;
         page->n_samples < limit && bytes < PAGE_BYTES_MAX && steps < PAGE_STEPS_MAX;) {
        struct store_info from;
        if (!store_list_next(space->store, at, &from)) {
            *at = 0;
            break;
        }
        steps += from.state == STORE_FREE ? EMPTY_STEPS : 1;
        if (!list_is_wanted(asked, &from))
            continue;
        Fb__SampleInfo *info = sample_info_new(broker, space, &from, asked->holders);
        if (!info)
            return false;
        page->samples[page->n_samples++] = info;
        bytes += fb__sample_info__get_packed_size(info);
    }
    return true;
}

/* A page may be empty and still not be the last: then there was much to pass over. */
Fb__ListReply *list_here(const struct broker *broker, const struct space *space,
                         const Fb__List *asked, bool alone) {
    Fb__ListReply *page = malloc(sizeof *page);
    if (!page)
        return NULL;
    fb__list_reply__init(page);
    uint64_t at = asked->cursor & LIST_CURSOR_MASK;
    page->samples = calloc(PAGE_ITEMS_MAX, sizeof *page->samples);
    if (!page->samples || !list_fill(broker, space, asked, page, &at)) {
        fb__list_reply__free_unpacked(page, NULL);
        return NULL;
    }
    page->cursor = list_onward(broker, space, at, alone);
    return page;
}
