/* SPDX-License-Identifier: Apache-2.0
 *
 * `featured --supervise`: a small parent that holds the broker's memory while the broker is away,
 * and starts it again. For containers, where it may be process 1, and for whoever has no systemd.
 */
#ifndef FEATURED_SUPERVISE_H
#define FEATURED_SUPERVISE_H

/* argv: of the broker, argv[0] included, NULL at the end. Returns the exit status of this process,
 * after a real stop, or when the very first broker never became ready. */
int supervise_run(char *const argv[]);

#endif
