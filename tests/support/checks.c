/* SPDX-License-Identifier: Apache-2.0
 *
 * A failing process says why on stderr and leaves by _exit(): neither Criterion's nor libfeature's
 * exit handlers run twice in forked helpers. The kernel kills what it started (see process.c).
 */
#include "support/checks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

_Noreturn void check_failed(const char *file, int line, const char *what, const char *format, ...) {
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s:%d: failed: %s: %s\n", file, line, what, message);
    fflush(NULL);
    _exit(1);
}

const char *check_read_text(const char *path) {
    static char text[262144];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[bytes > 0 ? bytes : 0] = '\0';
    if (fd >= 0)
        close(fd);
    return text;
}

void check_status(const char *file, int line, const char *call, int expected, int status) {
    if (status == expected)
        return;
    check_failed(file, line, call, "%s, expected %s: %s", feature_strerror(status),
                 feature_strerror(expected),
                 status == FEATURE_OK ? "it succeeded" : feature_last_error());
}

void check_says(const char *file, int line, const char *word) {
    if (strstr(feature_last_error(), word) == NULL)
        check_failed(file, line, "the sentence names it", "no \"%s\" in \"%s\"", word,
                     feature_last_error());
}

uint64_t check_now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

uint64_t check_now_ms(void) {
    return check_now_us() / 1000u;
}

void check_pause(uint32_t pause_ms) {
    struct timespec timeout = {.tv_sec = pause_ms / 1000u,
                               .tv_nsec = (long)(pause_ms % 1000u) * 1000000};
    ppoll(NULL, 0, &timeout, NULL);
}

uint32_t check_fd_count(pid_t pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", pid ? pid : getpid());
    DIR *directory = opendir(path);
    CHECK(directory != NULL, "%s: %s", path, strerror(errno));
    uint32_t count = 0;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return pid == 0 || pid == getpid() ? count - 1 : count; /* less the directory itself */
}

uint64_t check_private_bytes(pid_t pid) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", pid ? pid : getpid());
    FILE *file = fopen(path, "re");
    CHECK(file != NULL, "%s: %s", path, strerror(errno));
    uint64_t kib = 0;
    bool found = false;
    while (fgets(line, sizeof line, file) != NULL)
        found |= sscanf(line, "RssAnon: %" SCNu64 " kB", &kib) == 1;
    fclose(file);
    CHECK(found, "no RssAnon in %s", path);
    return kib * 1024u;
}

uint32_t check_child_count(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    FILE *file = fopen(path, "re");
    CHECK(file != NULL, "%s: %s", path, strerror(errno));
    uint32_t count = 0;
    for (int pid; fscanf(file, "%d", &pid) == 1;)
        count++;
    fclose(file);
    return count;
}

uint64_t check_seed(const char *test) {
    const char *given = getenv("FEATURED_TEST_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : check_now_us();
    fprintf(stderr, "%s: FEATURED_TEST_SEED=%" PRIu64 "\n", test, seed);
    return seed;
}

uint64_t check_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
