/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that is started with descriptor 0, 1 or 2 closed gets that number for the first thing
 * it opens: its log would go into an event loop's epoll, or into somebody's file.
 */
#ifndef FEATURED_HOST_STD_FDS_H
#define FEATURED_HOST_STD_FDS_H

/* To be called first thing in main(). Opens /dev/null on each of the three that is closed: reading
 * ends at once, writing to stdout fails as it would have, and what goes to stderr is not heard. */
void std_fds_open(void);

#endif
