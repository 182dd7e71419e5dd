/* SPDX-License-Identifier: Apache-2.0
 *
 * Child processes of a test: programs that are started and forked helpers that talk to the test
 * over a SEQPACKET channel. Each dies with the test (PR_SET_PDEATHSIG), inherits none of its fds,
 * and is waited for through a pidfd. A libfeature handle does not survive fork: a helper connects
 * anew.
 */
#ifndef FEATURED_TESTS_PROCESS_H
#define FEATURED_TESTS_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct process {
    pid_t pid; /* 0 = none */
    int pidfd;
    int channel; /* to a helper; -1 for a program */
};

/* Starts argv[0] with stdout and stderr appended to output_path. */
void process_spawn(struct process *out, const char *const argv[], const char *output_path);
/* Forks a helper that runs body(channel, context) and exits with what it returns. */
void process_fork(struct process *out, int (*body)(int channel, void *context), void *context);
/* Waits for its end, reaps it and closes its fds: true and *status_out as from waitpid(), or false
 * when it still runs after deadline_ms. */
bool process_wait(struct process *process, uint32_t deadline_ms, int *status_out);
bool process_running(const struct process *process);
void process_signal(const struct process *process, int signal_number);
/* Its one child, for example the broker under `featured --supervise`; 0: there is none now. */
pid_t process_child(const struct process *process);
/* SIGKILL and wait. Nothing to do for one that is gone. */
void process_kill(struct process *process);
/* The helper must end by itself, with status 0. */
void process_join(struct process *process, uint32_t deadline_ms);

struct process_output {
    int status; /* exit status, or 128 + signal */
    char *out, *err;
    size_t out_bytes;
};
/* Runs a program to its end and keeps what it wrote; process_output_deinit() afterwards. */
void process_run(struct process_output *result, const char *const argv[], uint32_t deadline_ms);
void process_output_deinit(struct process_output *result);

/* One message over a helper's channel, from either end. Receiving fails the check after
 * deadline_ms; 0 bytes: the other end is gone. */
void channel_send(int channel, const void *data, size_t bytes);
size_t channel_receive(int channel, void *buffer, size_t room, uint32_t deadline_ms);
void channel_say(int channel, const char *word);
void channel_expect(int channel, const char *word, uint32_t deadline_ms);
/* True when a message waits, or the other end is gone. */
bool channel_pending(int channel, uint32_t wait_ms);

#endif
