/* SPDX-License-Identifier: Apache-2.0
 *
 * Files with secrets, passwords and keys: nobody but root, this process and its groups may be able
 * to read one, and nobody but root and this user to change it. That is what chmod 600 gives, and
 * what a Kubernetes secret volume gives a pod that does not run as root: root's file, mode 0440, in
 * the pod's fsGroup, behind two symbolic links.
 */
#ifndef FEATURED_HOST_SECRET_FILE_H
#define FEATURED_HOST_SECRET_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/* Is a file with these facts secret enough for this process? False with a sentence in why that says
 * owner, group and mode and what is allowed. */
bool secret_file_is_private(const struct stat *facts, char *why, size_t why_bytes);
/* Opens a regular file that is private, for reading. A descriptor, or -errno with what is wrong
 * with the file in why, a sentence that goes on from its name: "cannot be opened: ...". */
int secret_file_open(const char *path, char *why, size_t why_bytes);

#endif
