/* SPDX-License-Identifier: Apache-2.0
 *
 * No state.
 */
#include "featurectl/members.h"

#include <string.h>

int members_fetch(struct context *context, Fb__ClientReply **reply_out) {
    Fb__Nodes nodes = FB__NODES__INIT;
    nodes.deadline_ms = MEMBERS_PATIENCE_MS;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_NODES;
    request.nodes = &nodes;
    return context_call(context, &request, NULL, FB__CLIENT_REPLY__RESULT_NODES, reply_out);
}

bool members_has_left(const Fb__NodeInfo *node) {
    return strcmp(node->state, "left") == 0;
}

const char *members_silence(const Fb__NodeInfo *node) {
    if (node->health)
        return NULL;
    if (members_has_left(node))
        return "it has left the cluster";
    return *node->silence ? node->silence : "it has said nothing";
}
