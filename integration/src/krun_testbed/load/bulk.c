/* Bytes in one direction over some connections at once: how many arrive in a second, after half a second thrown away. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "load.h"

static const double WARM_UP = 0.5;

int bulk(char **arguments)
{
	int is_down = !strcmp(arguments[1], "down"), streams = number(arguments[2]), poll = epoll_create1(0);
	double seconds = atof(arguments[3]), begun, started = 0;
	volatile uint64_t *taken = counter(arguments[4]);
	uint64_t got = 0, before = 0;
	struct epoll_event events[64];
	struct hello hello;

	read_hello(&hello, arguments[5]);
	for (int i = 0; i < streams; i++) {
		int descriptor = dial(arguments[0]);

		write_all(descriptor, hello.bytes, hello.size);
		non_blocking(descriptor);
		watch(poll, descriptor, is_down ? EPOLLIN : EPOLLOUT, descriptor);
	}
	begun = now();
	for (;;) {
		int count = epoll_wait(poll, events, 64, 100);
		double at = now();

		if (!started && at - begun >= WARM_UP) {
			started = at;
			before = is_down ? got : *taken;
		}
		if (started && at - started >= seconds) {
			printf("{\"bytes\": %.0f, \"seconds\": %.6f}\n", (double)((is_down ? got : *taken) - before),
			       at - started);
			return 0;
		}
		for (int i = 0; i < count; i++) {
			int descriptor = events[i].data.fd;
			int size = is_down ? recv(descriptor, buffer, TAKE, MSG_TRUNC) :
					     send(descriptor, buffer, BUFFER, MSG_NOSIGNAL);

			if (size == 0)
				errno = ECONNRESET;
			if (size == 0 || (size < 0 && errno != EAGAIN))
				die("a connection ended");
			if (is_down && size > 0)
				got += size;
		}
	}
}
