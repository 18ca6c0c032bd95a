/* Connections opened, used for one byte to and fro, and closed: so many at once, for some seconds. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

enum { MOST = 1000000, FAILURES = 1000 };

static int wanted[DESCRIPTORS]; /* bytes to come; -1 while being connected */
static double opened[DESCRIPTORS];

static void open_one(int poll, const char *address)
{
	int descriptor;
	double started = now();

	descriptor = begin_dial(address);
	wanted[descriptor] = -1;
	opened[descriptor] = started;
	watch(poll, descriptor, EPOLLOUT, descriptor);
}

/* Send the hello and one byte; non-zero when that fails. */
static int begin(int poll, int descriptor, const struct hello *hello)
{
	if (hello->size && send(descriptor, hello->bytes, hello->size, MSG_NOSIGNAL) != hello->size)
		return -1;
	if (send(descriptor, "x", 1, MSG_NOSIGNAL) != 1)
		return -1;
	wanted[descriptor] = hello->size + 1;
	watch_again(poll, descriptor, EPOLLIN, descriptor);
	return 0;
}

int connects(char **arguments)
{
	int at_once = number(arguments[1]), poll = epoll_create1(0), done = 0, failed = 0;
	double seconds = atof(arguments[2]), begun = now(), *times = malloc(sizeof *times * MOST);
	struct epoll_event events[256];
	struct hello hello;

	read_hello(&hello, arguments[3]);
	for (int i = 0; i < at_once; i++)
		open_one(poll, arguments[0]);
	while (now() - begun < seconds) {
		int count = epoll_wait(poll, events, 256, 100);

		for (int i = 0; i < count; i++) {
			int descriptor = events[i].data.fd, size = 0, is_over;

			if (wanted[descriptor] == -1)
				is_over = begin(poll, descriptor, &hello);
			else {
				size = read(descriptor, buffer, BUFFER);
				is_over = size == 0 || (size < 0 && errno != EAGAIN);
				wanted[descriptor] -= size > 0 ? size : 0;
			}
			if (wanted[descriptor] == 0) {
				if (done < MOST)
					times[done++] = now() - opened[descriptor];
			} else if (!is_over)
				continue;
			else if (++failed > FAILURES)
				die("too many connections failed");
			close(descriptor);
			open_one(poll, arguments[0]);
		}
	}
	printf("{\"per_second\": %.2f, \"done\": %d, \"failed\": %d, ", done / (now() - begun), done, failed);
	tell_times(times, done);
	printf("}\n");
	return 0;
}
