/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands between the broker and its directory, and whether two brokers have one name: as the
 * broker itself says.
 */
#include "featurectl/doctor.h"

#include <string.h>

/* NULL: the broker does not answer. To be freed with fb__client_reply__free_unpacked(). */
static Fb__ClientReply *doctor_directory_ask_health(struct context *context,
                                                    const struct doctor_broker *broker) {
    Fb__Health health = FB__HEALTH__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    Fb__ClientReply *reply = NULL;
    request.op_case = FB__CLIENT_REQUEST__OP_HEALTH;
    request.health = &health;
    if (!broker->answers ||
        feature_admin_call(context->feature, &request, CONTEXT_DEADLINE_MS, &reply) != FEATURE_OK)
        return NULL;
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_HEALTH)
        return reply;
    fb__client_reply__free_unpacked(reply, NULL);
    return NULL;
}

/* The broker's words tell the two kinds apart: an etcd that says no has to be mended by a
 * person, one that is away may come back by itself.
 */
void doctor_judge_directory(const char *directory, const char *trouble,
                            struct doctor_finding *out) {
    if (!*trouble)
        doctor_say(out, DOCTOR_OK, NULL, "directory = %s: nothing is in the way", directory);
    else if (strstr(trouble, " refuses") || strstr(trouble, "does not answer as an etcd"))
        doctor_say(out, DOCTOR_FAIL,
                   "nothing can be put until it takes the broker's requests: see the words, then "
                   "[directory] in the configuration, and users, roles and alarms of etcd",
                   "%s", trouble);
    else
        doctor_say(out, DOCTOR_WARN,
                   "puts fail while it is away, and gets by id: is etcd running, and are its "
                   "endpoints those of [directory]?",
                   "%s", trouble);
}

/* A broker that does not answer has been told of by the check of its socket. */
void doctor_check_directory(struct context *context, struct doctor_broker *broker,
                            struct doctor_finding *out) {
    Fb__ClientReply *reply = doctor_directory_ask_health(context, broker);
    doctor_say(out, DOCTOR_SKIP, NULL, "not checked: no broker tells");
    if (!reply)
        return;
    doctor_judge_directory(reply->health->directory, reply->health->trouble, out);
    fb__client_reply__free_unpacked(reply, NULL);
}

/* Of this node, and of those that it knows. */
void doctor_check_twin(struct context *context, struct doctor_broker *broker,
                       struct doctor_finding *out) {
    Fb__Nodes nodes = FB__NODES__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    Fb__ClientReply *reply;
    request.op_case = FB__CLIENT_REQUEST__OP_NODES;
    request.nodes = &nodes;
    doctor_say(out, DOCTOR_SKIP, NULL, "not checked: no broker tells");
    if (!broker->answers ||
        feature_admin_call(context->feature, &request, CONTEXT_DEADLINE_MS, &reply) != FEATURE_OK)
        return;
    bool tells = reply->result_case == FB__CLIENT_REPLY__RESULT_NODES;
    if (tells)
        doctor_say(out, DOCTOR_OK, NULL, "each is known of one broker");
    for (size_t i = 0; tells && i < reply->nodes->n_nodes; i++)
        if (*reply->nodes->nodes[i]->twin)
            doctor_say(out, DOCTOR_FAIL,
                       "give one of the two another [node] name (a cloned image?) and start it "
                       "again",
                       "%s", reply->nodes->nodes[i]->twin);
    fb__client_reply__free_unpacked(reply, NULL);
}
