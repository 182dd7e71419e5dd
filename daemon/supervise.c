/* SPDX-License-Identifier: Apache-2.0
 *
 * One process, one broker at a time. All it knows about the broker is its pid, whether it has said
 * READY=1, and what it has handed over (held.h). It reads no configuration and opens no file, so
 * that there is little for it to die of: when it dies, the samples of this node are gone.
 *
 *   running --the broker ends--> waiting --back-off is over, SIGHUP, SIGUSR2--> running
 *   running --SIGTERM, SIGINT--> stopping --the broker ends--> the end
 *   waiting --SIGTERM, SIGINT--> the end
 *
 * Signals: SIGTERM and SIGINT are passed on and mean a real stop: the broker drains, and we end
 * when it has ended. SIGHUP is passed on (read the configuration again). SIGUSR2 is passed on, too:
 * it tells the broker to leave at once with all memory in place, and it is started again at once.
 * That is how to restart or to upgrade it.
 *
 * How long we wait before the next start: a broker that has been ready comes again at once, for its
 * clients wait. One that was not (a mistake in the configuration, a port in use) comes after a time
 * that doubles from BACK_OFF_FIRST_MS to BACK_OFF_MAX_MS. If the very first one never became ready
 * there is nothing to guard: we end as it did, like a featured without --supervise.
 *
 * As process 1 of a container we reap every child, whoever's it was.
 *
 * The broker ends with us (PR_SET_PDEATHSIG): nobody would hold its memory any more, so it drains.
 * It has a process group of its own, so that Ctrl-C in a terminal comes to us alone and once.
 */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "held.h"
#include "ops/log.h"
#include "ops/notify.h"

#define BACK_OFF_FIRST_MS 50u
#define BACK_OFF_MAX_MS   5000u
#define LOG_PATIENCE_MS   1000u
/* Of all descriptors this process may have, the rest is for its own few. */
#define SPARE_FDS         32u
#define HELD_LIMIT        16384u
#define MESSAGES_PER_TURN 256u

enum { EXIT_TROUBLE = 1 };

struct supervise {
    char program[PATH_MAX]; /* found once, so that a newer one in its place is taken */
    char *const *argv;
    int notify, signals; /* a socket and a signalfd */
    char address[32];    /* of the socket, as NOTIFY_SOCKET */
    struct held held;
    char *names;  /* LISTEN_FDNAMES= and the names; as long as they may get */
    pid_t parent; /* this process */
    pid_t broker; /* 0: none runs */
    bool ready;   /* the broker that runs, or ran last, has said so */
    bool was_ever_ready, stopping, asked; /* asked: to leave for a restart */
    uint32_t back_off_ms;
    uint64_t start_at_ms;
    uint64_t starts;
    int status; /* as from waitpid(), of the last broker */
};

static uint64_t supervise_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- starting a broker ---- */

#define NAMES_PREFIX "LISTEN_FDNAMES="

static bool supervise_is_ours(const char *variable) {
    static const char *const ours[] = {
        "NOTIFY_SOCKET=", "FDSTORE=", "LISTEN_PID=", "LISTEN_FDS=", NAMES_PREFIX};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (!strncmp(variable, ours[i], strlen(ours[i])))
            return true;
    return false;
}

/* In the new process. Only what is safe after a fork() of a process with threads: no malloc(), no
 * lock. LISTEN_PID is the one variable that nobody could know before. */
_Noreturn static void supervise_become_broker(const struct supervise *supervise, char **environment,
                                              char *pid_text, size_t pid_bytes) {
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    for (size_t i = 0; i < supervise->held.count; i++)
        fcntl(HELD_FIRST_FD + (int)i, F_SETFD, 0);
    snprintf(pid_text, pid_bytes, "LISTEN_PID=%d", (int)getpid());
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == supervise->parent) {
        sigprocmask(SIG_SETMASK, &none, NULL);
        execve(supervise->program, supervise->argv, environment);
    }
    _exit(127);
}

/* The environment of this process, with our five variables in it. */
static pid_t supervise_fork(struct supervise *supervise) {
    char pid_text[32] = "", count_text[32], limit_text[32], notify_text[64];
    size_t count = 0, used = 0;
    while (environ[count])
        count++;
    char **environment = calloc(count + 6, sizeof *environment);
    if (!environment)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (!supervise_is_ours(environ[i]))
            environment[used++] = environ[i];
    snprintf(notify_text, sizeof notify_text, "NOTIFY_SOCKET=%s", supervise->address);
    snprintf(limit_text, sizeof limit_text, "FDSTORE=%zu", supervise->held.limit);
    snprintf(count_text, sizeof count_text, "LISTEN_FDS=%zu", supervise->held.count);
    held_names(&supervise->held, supervise->names + strlen(NAMES_PREFIX));
    environment[used++] = notify_text;
    environment[used++] = limit_text;
    environment[used++] = count_text;
    environment[used++] = supervise->names;
    environment[used++] = pid_text;
    pid_t pid = fork();
    if (pid == 0)
        supervise_become_broker(supervise, environment, pid_text, sizeof pid_text);
    free(environment);
    return pid;
}

static void supervise_back_off(struct supervise *supervise) {
    supervise->start_at_ms = supervise_now_ms() + supervise->back_off_ms;
    supervise->back_off_ms = supervise->back_off_ms == 0 ? BACK_OFF_FIRST_MS
                             : supervise->back_off_ms > BACK_OFF_MAX_MS / 2
                                 ? BACK_OFF_MAX_MS
                                 : 2 * supervise->back_off_ms;
}

static void supervise_start(struct supervise *supervise) {
    supervise->ready = supervise->asked = false;
    pid_t pid = supervise_fork(supervise);
    if (pid < 0) {
        log_error("supervisor: no process for the broker: %s", strerror(errno));
        supervise_back_off(supervise);
        return;
    }
    supervise->broker = pid;
    supervise->starts++;
    if (supervise->starts > 1)
        log_info("supervisor: broker started again, pid %d, start %llu, with %zu descriptors",
                 (int)pid, (unsigned long long)supervise->starts, supervise->held.count);
}

/* ---- what the broker says ---- */

static int supervise_fd_of(struct msghdr *message) {
    int kept = -1;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
            if (kept < 0)
                kept = fd;
            else
                close(fd);
        }
    }
    return kept;
}

/* Anybody on this machine can find an abstract socket. The kernel says who has sent a message, and
 * the broker that runs is the only one who is heard. */
static bool supervise_is_from_broker(const struct supervise *supervise, struct msghdr *message) {
    struct ucred who = {0};
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
         header = CMSG_NXTHDR(message, header))
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_CREDENTIALS &&
            header->cmsg_len == CMSG_LEN(sizeof who))
            memcpy(&who, CMSG_DATA(header), sizeof who);
    return supervise->broker > 0 && who.pid == supervise->broker;
}

/* What is not about descriptors goes on to our own manager, if we have one: it waits for READY=1.
 */
static void supervise_on_other(struct supervise *supervise, const char *text) {
    if (held_says(text, "READY=1")) {
        supervise->ready = supervise->was_ever_ready = true;
        supervise->back_off_ms = 0;
    }
    if (supervise->stopping || !held_says(text, "STOPPING=1"))
        notify_manager(text);
}

/* One message. False: there is none. */
static bool supervise_hear(struct supervise *supervise) {
    char text[HELD_MESSAGE_MAX + 1];
    union {
        char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec part = {.iov_base = text, .iov_len = HELD_MESSAGE_MAX};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(supervise->notify, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0)
        return errno == EINTR;
    int fd = supervise_fd_of(&message);
    if (!supervise_is_from_broker(supervise, &message)) {
        if (fd >= 0)
            close(fd);
        return true;
    }
    enum held_message about = held_hear(&supervise->held, text, (size_t)got, fd);
    if (about == HELD_REFUSED)
        log_error("supervisor: a descriptor of the broker cannot be held: %zu of %zu are held "
                  "(RLIMIT_NOFILE)",
                  supervise->held.count, supervise->held.limit);
    else if (about == HELD_OTHER)
        supervise_on_other(supervise, text);
    return true;
}

/* ---- signals and children ---- */

static void supervise_say_end(const struct supervise *supervise) {
    int status = supervise->status;
    const char *next = supervise->stopping ? "" : "; it is started again";
    if (WIFSIGNALED(status))
        log_warning("supervisor: broker, pid %d, was ended by signal %d (%s)%s",
                    (int)supervise->broker, WTERMSIG(status), strsignal(WTERMSIG(status)), next);
    else if (!supervise->stopping && !supervise->asked)
        log_warning("supervisor: broker, pid %d, ended with status %d%s", (int)supervise->broker,
                    WEXITSTATUS(status), next);
}

/* What it said last is heard before it counts as gone: the kernel names it as the sender, and what
 * it has handed over in its last moment must not be lost. */
static void supervise_on_broker_gone(struct supervise *supervise) {
    while (supervise_hear(supervise))
        ;
    supervise_say_end(supervise);
    supervise->broker = 0;
    supervise_back_off(supervise);
}

static void supervise_reap(struct supervise *supervise) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == supervise->broker) {
            supervise->status = status;
            supervise_on_broker_gone(supervise);
        }
}

static void supervise_pass_on(struct supervise *supervise, int number) {
    if (supervise->broker > 0)
        kill(supervise->broker, number);
    else
        supervise->start_at_ms = 0; /* whoever sends it does not want to wait any longer */
}

static void supervise_on_signal(struct supervise *supervise, int number) {
    if (number == SIGCHLD) {
        supervise_reap(supervise);
        return;
    }
    if (number == SIGTERM || number == SIGINT)
        supervise->stopping = true;
    if (number == SIGUSR2)
        supervise->asked = true;
    supervise_pass_on(supervise, number);
}

static void supervise_take_signals(struct supervise *supervise) {
    struct signalfd_siginfo signal;
    while (read(supervise->signals, &signal, sizeof signal) == sizeof signal)
        supervise_on_signal(supervise, (int)signal.ssi_signo);
}

/* ---- the whole ---- */

/* Out of the range of the descriptors that are held. */
static int supervise_move_up(const struct supervise *supervise, int fd) {
    int moved =
        fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, HELD_FIRST_FD + (int)supervise->held.limit);
    if (fd >= 0)
        close(fd);
    return moved;
}

/* The kernel chooses a name that nobody has: binding to an address without a path, unix(7). */
static int supervise_open_socket(struct supervise *supervise) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t bytes = sizeof address;
    const int on = 1;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    supervise->notify = supervise_move_up(supervise, fd);
    if (supervise->notify < 0 ||
        setsockopt(supervise->notify, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0 ||
        bind(supervise->notify, (struct sockaddr *)&address, sizeof address.sun_family) < 0 ||
        getsockname(supervise->notify, (struct sockaddr *)&address, &bytes) < 0)
        return -errno;
    size_t name_bytes = bytes - offsetof(struct sockaddr_un, sun_path) - 1;
    if (name_bytes + 2 > sizeof supervise->address)
        return -ENAMETOOLONG;
    snprintf(supervise->address, sizeof supervise->address, "@%.*s", (int)name_bytes,
             address.sun_path + 1);
    return 0;
}

static int supervise_open_signals(struct supervise *supervise) {
    static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR2};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaddset(&set, numbers[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    supervise->signals =
        supervise_move_up(supervise, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    return supervise->signals < 0 ? -errno : 0;
}

/* As many as the limit of open files allows, raised as far as it may be. */
static size_t supervise_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 0;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max <= SPARE_FDS)
        return 0;
    return limit.rlim_max - SPARE_FDS < HELD_LIMIT ? (size_t)limit.rlim_max - SPARE_FDS
                                                   : HELD_LIMIT;
}

static int supervise_init(struct supervise *supervise, char *const argv[]) {
    *supervise = (struct supervise){.argv = argv, .parent = getpid(), .notify = -1, .signals = -1};
    ssize_t bytes = readlink("/proc/self/exe", supervise->program, sizeof supervise->program - 1);
    if (bytes < 0)
        return -errno;
    int result = held_init(&supervise->held, supervise_limit());
    if (result < 0)
        return result;
    supervise->names = malloc(sizeof NAMES_PREFIX + HELD_NAMES_BYTES_MAX);
    if (!supervise->names)
        return -ENOMEM;
    memcpy(supervise->names, NAMES_PREFIX, sizeof NAMES_PREFIX);
    result = supervise_open_signals(supervise);
    return result < 0 ? result : supervise_open_socket(supervise);
}

static void supervise_deinit(struct supervise *supervise) {
    if (supervise->notify >= 0)
        close(supervise->notify);
    if (supervise->signals >= 0)
        close(supervise->signals);
    free(supervise->names);
    held_deinit(&supervise->held);
}

static int supervise_wait_ms(const struct supervise *supervise) {
    if (supervise->broker > 0)
        return -1;
    uint64_t now_ms = supervise_now_ms();
    return supervise->start_at_ms > now_ms ? (int)(supervise->start_at_ms - now_ms) : 0;
}

/* Messages before signals: what a broker has said is heard before its end is. Not without end: a
 * broker that talks all the time must not keep us from a SIGTERM. */
static void supervise_turn(struct supervise *supervise) {
    struct pollfd watched[2] = {{.fd = supervise->notify, .events = POLLIN},
                                {.fd = supervise->signals, .events = POLLIN}};
    poll(watched, 2, supervise_wait_ms(supervise));
    for (unsigned i = 0; i < MESSAGES_PER_TURN && supervise_hear(supervise); i++)
        ;
    supervise_take_signals(supervise);
}

static bool supervise_is_over(const struct supervise *supervise) {
    return supervise->broker == 0 &&
           (supervise->stopping || (supervise->starts > 0 && !supervise->was_ever_ready));
}

static void supervise_loop(struct supervise *supervise) {
    while (!supervise_is_over(supervise)) {
        if (supervise->broker == 0 && supervise_wait_ms(supervise) == 0)
            supervise_start(supervise);
        supervise_turn(supervise);
    }
}

int supervise_run(char *const argv[]) {
    struct supervise *supervise = malloc(sizeof *supervise);
    /* Signals are blocked before there is a second thread, which would get them. */
    int result = supervise ? supervise_init(supervise, argv) : -ENOMEM;
    if (result == 0)
        result = log_start();
    int status = EXIT_TROUBLE;
    if (result < 0) {
        log_error("supervisor: it cannot start: %s%s", strerror(-result),
                  result == -ENOENT ? "; is /proc mounted?" : "");
    } else {
        supervise_loop(supervise);
        status = WIFEXITED(supervise->status) ? WEXITSTATUS(supervise->status)
                                              : 128 + WTERMSIG(supervise->status);
    }
    if (supervise)
        supervise_deinit(supervise);
    free(supervise);
    log_stop(LOG_PATIENCE_MS);
    return status;
}
