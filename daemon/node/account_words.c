/* SPDX-License-Identifier: Apache-2.0
 *
 * Limits in words: "max_leases_per_user = 4: user 1000 has 4 leases, 1 more asked". The key is
 * named as the configuration spells it, so that it can be looked up and raised.
 */
#include "node/account_words.h"

#include <stdio.h>

#include "ops/log.h"

static void account_words_amount_say(char out[32], enum charge charge, uint64_t amount) {
    if (charge_is_bytes(charge))
        log_bytes(amount, out);
    else
        snprintf(out, 32, "%llu", (unsigned long long)amount);
}

/* As people know them: a session by number and user, a user by uid, a peer by its name. */
void account_name(const struct account *account, char *out, size_t out_bytes) {
    switch (account->kind) {
    case ACCOUNT_SESSION:
        snprintf(out, out_bytes, "session %llu of user %llu", (unsigned long long)account->number,
                 (unsigned long long)account->parent->number);
        break;
    case ACCOUNT_USER:
        snprintf(out, out_bytes, "user %llu", (unsigned long long)account->number);
        break;
    case ACCOUNT_PEER:
        snprintf(out, out_bytes, "node %s", account->name);
        break;
    default:
        snprintf(out, out_bytes, "this node");
    }
}

/* Some limits have no key of their own for a certain owner: then it is "a limit". */
void account_sentence(char *out, size_t out_bytes, const struct charge_refusal *refusal) {
    char limit[32], used[32], asked[32], who[128];
    const char *key = charge_key(refusal->account->kind, refusal->charge);
    account_words_amount_say(limit, refusal->charge, refusal->limit);
    account_words_amount_say(used, refusal->charge, refusal->used);
    account_words_amount_say(asked, refusal->charge, refusal->asked);
    account_name(refusal->account, who, sizeof who);
    snprintf(out, out_bytes, "%s = %s: %s has %s %s, %s more asked", key ? key : "a limit", limit,
             who, used, charge_words(refusal->charge), asked);
}
