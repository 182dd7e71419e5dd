/* SPDX-License-Identifier: Apache-2.0
 *
 * Is the broker there, may we talk to it, does it answer, is it allowed what it needs, and do the
 * nodes reach each other where their bytes are.
 */
#include "featurectl/doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "featurectl/readiness.h"
#include "featurectl/units.h"

/* A file descriptor per session, a few per store and peer: below this many it gets tight. */
#define NOFILE_WANTED 4096u
#define NOFILE_NEEDED 256u

/* The same three places, in the same order, in which the library looks. */
static const char *doctor_broker_socket_path(const struct context *context) {
    const char *path = options_text(&context->options, "socket", NULL);
    path = path ? path : getenv("FEATURED_SOCKET");
    return path && *path ? path : "/run/featured/featured.sock";
}

/* Who listens there, by SO_PEERCRED; 0 when it cannot be known. */
static pid_t doctor_broker_listener_pid(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return 0;
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct ucred peer = {0};
    socklen_t length = sizeof peer;
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length);
    if (fd >= 0)
        close(fd);
    return peer.pid;
}

/* Trouble with the file itself: then there is no use in connecting. */
static bool doctor_broker_socket_file_is_bad(const char *path, struct doctor_broker *broker,
                                             struct doctor_finding *out) {
    struct stat about;
    int error = stat(path, &about) == 0 ? 0 : errno;
    broker->unseen = error == EACCES || (!error && access(path, R_OK | W_OK) != 0);
    if (error == EACCES)
        doctor_say(out, DOCTOR_SKIP, "run as root, or as a user who may enter its directory",
                   "not checked: uid %u may not look for %s", geteuid(), path);
    else if (error)
        doctor_say(out, DOCTOR_FAIL,
                   "start the broker (systemctl start featured), or name its socket with --socket",
                   "%s: %s", path, strerror(error));
    else if (!S_ISSOCK(about.st_mode))
        doctor_say(out, DOCTOR_FAIL, "remove it or choose another [local] socket",
                   "%s is no socket", path);
    else if (broker->unseen)
        doctor_say(out, DOCTOR_SKIP,
                   "run as root; for programs of this user join the group that owns the socket, or "
                   "widen [local] socket_mode / socket_group",
                   "not checked: %s has mode %04o, uid %u, gid %u: no permission for uid %u", path,
                   about.st_mode & 07777, about.st_uid, about.st_gid, geteuid());
    else
        return false;
    return true;
}

/* It answers; does it take puts and serve gets too? */
static void doctor_broker_check_ready(struct context *context, struct doctor_finding *out) {
    Fb__Health health = FB__HEALTH__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    Fb__ClientReply *reply;
    request.op_case = FB__CLIENT_REQUEST__OP_HEALTH;
    request.health = &health;
    if (feature_admin_call(context->feature, &request, CONTEXT_DEADLINE_MS, &reply) != FEATURE_OK)
        return;
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_HEALTH &&
        readiness_of(reply->health) == READINESS_NOT_READY)
        doctor_say(out, DOCTOR_WARN,
                   "puts and gets fail until it is ready: wait if it is stopping, else see its log",
                   "node %s answers and is not ready: %s", reply->health->node,
                   readiness_why(reply->health));
    fb__client_reply__free_unpacked(reply, NULL);
}

/* The first check: what it learns (does a broker answer, under which pid, with how much memory)
 * is what the others build on.
 */
void doctor_check_socket(struct context *context, struct doctor_broker *broker,
                         struct doctor_finding *out) {
    const char *path = doctor_broker_socket_path(context);
    char up[UNITS_ROOM];
    struct feature_health health = {.size = sizeof health};
    if (doctor_broker_socket_file_is_bad(path, broker, out))
        return;
    broker->pid = doctor_broker_listener_pid(path);
    int status = context_connect(context);
    if (!status)
        status = feature_health(context->feature, &health);
    if (status) {
        doctor_say(out, DOCTOR_FAIL,
                   status == FEATURE_E_DENIED
                       ? "[local] allow_uids or allow_gids must name this user or a group of his"
                       : "look at the broker's log (journalctl -u featured); is it running?",
                   "%s: %s", path, feature_last_error());
        return;
    }
    broker->answers = true;
    broker->resident_bytes = health.resident_bytes;
    broker->max_resident_bytes = health.max_resident_bytes;
    doctor_say(out, DOCTOR_OK, NULL, "%s: node %s answers, pid %d, up %s", path, health.node,
               (int)broker->pid, units_duration(health.uptime_ms, up));
    doctor_broker_check_ready(context, out);
}

/* False: the finding says why it is not known. */
static bool doctor_broker_read_limit(const struct doctor_broker *broker, const char *name,
                                     uint64_t *limit_out, struct doctor_finding *out) {
    char path[64], limits[4096];
    pid_t pid = doctor_whose_limits(broker, out);
    if (!pid)
        return false;
    snprintf(path, sizeof path, "/proc/%d/limits", (int)pid);
    if (doctor_read_file(path, limits, sizeof limits) &&
        doctor_parse_limit(limits, name, limit_out))
        return true;
    doctor_say(out, DOCTOR_SKIP, "run as root", "not checked: %s cannot be read by uid %u", path,
               geteuid());
    return false;
}

/* For sentences: whose limits the numbers are. */
static const char *doctor_broker_whose(const struct doctor_broker *broker) {
    return broker->pid ? "the broker's" : "this shell's";
}

/* Only RDMA needs it, so that too little is a warning. A broker that does not answer cannot say
 * how much it may need.
 */
void doctor_check_memlock(struct context *context, struct doctor_broker *broker,
                          struct doctor_finding *out) {
    (void)context;
    char limit[UNITS_ROOM], need[UNITS_ROOM];
    uint64_t limit_bytes;
    const char *advice =
        "RDMA pins the stores' memory; without it peers are reached over TCP: "
        "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited before the start";
    if (!doctor_broker_read_limit(broker, "Max locked memory", &limit_bytes, out))
        return;
    if (limit_bytes == UINT64_MAX)
        doctor_say(out, DOCTOR_OK, NULL, "%s limit is unlimited", doctor_broker_whose(broker));
    else if (!broker->answers)
        doctor_say(out, DOCTOR_WARN, advice, "%s limit is %s", doctor_broker_whose(broker),
                   units_bytes(limit_bytes, limit));
    else
        doctor_say(out, limit_bytes >= broker->max_resident_bytes ? DOCTOR_OK : DOCTOR_WARN, advice,
                   "%s limit is %s, its stores may need %s", doctor_broker_whose(broker),
                   units_bytes(limit_bytes, limit), units_bytes(broker->max_resident_bytes, need));
}

/* Below NOFILE_NEEDED a broker with some sessions and peers runs out at once; below
 * NOFILE_WANTED it may.
 */
void doctor_check_nofile(struct context *context, struct doctor_broker *broker,
                         struct doctor_finding *out) {
    (void)context;
    uint64_t limit;
    if (!doctor_broker_read_limit(broker, "Max open files", &limit, out))
        return;
    doctor_say(out,
               limit >= NOFILE_WANTED   ? DOCTOR_OK
               : limit >= NOFILE_NEEDED ? DOCTOR_WARN
                                        : DOCTOR_FAIL,
               "each session takes one: LimitNOFILE=65536 in the unit, or ulimit -n 65536",
               "%s limit is %" PRIu64, doctor_broker_whose(broker), limit);
}

/* The address of this node that others do not reach is for the admin of this node; that of
 * another is for both.
 */
static void doctor_broker_say_unreached(const Fb__NodeInfo *node, struct doctor_finding *out) {
    const char *advice = "bytes take the way of messages instead: check [peers] data_address of "
                         "the node it belongs to, its [peers] listen, routes and firewalls";
    if (node->self)
        doctor_say(out, DOCTOR_WARN, advice, "this node's %s is not reached %s", node->data_address,
                   node->data_failure);
    else
        doctor_say(out, DOCTOR_WARN, advice, "node %s: its %s is not reached: %s", node->node,
                   node->data_address, node->data_failure);
}

/* Asks this broker what it knows, with a deadline of 0: the other nodes are not bothered. */
void doctor_check_data(struct context *context, struct doctor_broker *broker,
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
    const Fb__NodesReply *all = reply->nodes;
    doctor_say(out, DOCTOR_OK, NULL, "no node misses another's");
    for (size_t i = 0; reply->result_case == FB__CLIENT_REPLY__RESULT_NODES && i < all->n_nodes;
         i++)
        if (*all->nodes[i]->data_failure)
            doctor_broker_say_unreached(all->nodes[i], out);
    fb__client_reply__free_unpacked(reply, NULL);
}
