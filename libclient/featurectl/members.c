/* SPDX-License-Identifier: Apache-2.0
 *
 * No state.
 *
 * The members of the cluster as this broker knows them, with what each says of itself. This node
 * is the first of the list, for all commands that go through the members.
 *
 * A node that has left is not the same as a silent one: the first is known to be gone, the
 * second may hold samples of which nothing can be said.
 */
#include "featurectl/members.h"

#include <string.h>

/* Waits for silent nodes as long as MEMBERS_PATIENCE_MS, once for all of them together. */
int members_fetch(struct context *context, Fb__ClientReply **reply_out) {
    Fb__Nodes nodes = FB__NODES__INIT;
    nodes.deadline_ms = MEMBERS_PATIENCE_MS;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_NODES;
    request.nodes = &nodes;
    return context_call(context, &request, NULL, FB__CLIENT_REPLY__RESULT_NODES, reply_out);
}

/* Its record in the index has ended: nothing is to be expected from it. */
bool members_has_left(const Fb__NodeInfo *node) {
    return strcmp(node->state, "left") == 0;
}

/* NULL: it has answered. Else why it has not, in words. */
const char *members_silence(const Fb__NodeInfo *node) {
    if (node->health)
        return NULL;
    if (members_has_left(node))
        return "it has left the cluster";
    return *node->silence ? node->silence : "it has said nothing";
}
