/* The servers: one sends back what it gets, one only takes, one only gives. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

enum kind { ECHO, SINK, SOURCE, KINDS };
enum { LISTENER = 1 << 8, AT_ONCE = 64 * 1024 };

static char *kept[DESCRIPTORS]; /* what an echo could not yet send */
static int kept_size[DESCRIPTORS];

static void end(int descriptor)
{
	free(kept[descriptor]);
	kept[descriptor] = NULL;
	close(descriptor);
}

static int is_over(int result)
{
	return result == 0 || (result < 0 && errno != EAGAIN);
}

static void keep(int poll, int descriptor, const char *from, int size, uint64_t data)
{
	char *copy = malloc(size);

	for (int i = 0; i < size; i++)
		copy[i] = from[i];
	free(kept[descriptor]);
	kept[descriptor] = copy;
	kept_size[descriptor] = size;
	watch_again(poll, descriptor, EPOLLOUT, data); /* and read no more until it is sent */
}

static void echo(int poll, int descriptor, uint64_t data)
{
	int size, done;

	if (kept[descriptor]) {
		size = kept_size[descriptor];
		done = send(descriptor, kept[descriptor], size, MSG_NOSIGNAL);
		if (is_over(done))
			end(descriptor);
		else if (done > 0 && done < size)
			keep(poll, descriptor, kept[descriptor] + done, size - done, data);
		else if (done == size) {
			free(kept[descriptor]);
			kept[descriptor] = NULL;
			watch_again(poll, descriptor, EPOLLIN, data);
		}
		return;
	}
	size = read(descriptor, buffer, AT_ONCE);
	if (is_over(size)) {
		end(descriptor);
		return;
	}
	if (size < 0)
		return;
	done = send(descriptor, buffer, size, MSG_NOSIGNAL);
	if (done < 0 && errno != EAGAIN)
		end(descriptor);
	else if (done < size)
		keep(poll, descriptor, buffer + (done > 0 ? done : 0), size - (done > 0 ? done : 0), data);
}

static void take(int descriptor, volatile uint64_t *total)
{
	/* MSG_TRUNC of TCP throws the bytes away unread, so that the load costs little of the machine. */
	int size = recv(descriptor, buffer, TAKE, MSG_TRUNC);

	if (is_over(size))
		end(descriptor);
	else if (size > 0)
		*total += size;
}

static void give(int descriptor, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && is_over(recv(descriptor, buffer, BUFFER, MSG_TRUNC))) {
		end(descriptor);
		return;
	}
	if (events & EPOLLOUT && is_over(send(descriptor, buffer, BUFFER, MSG_NOSIGNAL)))
		end(descriptor);
}

int serve(char **arguments)
{
	volatile uint64_t *total = counter(arguments[KINDS]);
	int poll = epoll_create1(0);
	struct epoll_event events[256];

	for (uint64_t kind = 0; kind < KINDS; kind++) {
		int listener = listen_at(arguments[kind]);

		watch(poll, listener, EPOLLIN, (kind | LISTENER) << 32 | listener);
	}
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(poll, events, 256, -1);

		for (int i = 0; i < count; i++) {
			uint64_t data = events[i].data.u64, kind = data >> 32 & 0xff;
			int descriptor = data & 0xffffffff, connected;

			if (data >> 32 & LISTENER) {
				while ((connected = accept4(descriptor, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
					at_once(connected);
					watch(poll, connected, kind == SOURCE ? EPOLLIN | EPOLLOUT : EPOLLIN,
					      kind << 32 | connected);
				}
			} else if (kind == ECHO)
				echo(poll, descriptor, data);
			else if (kind == SINK)
				take(descriptor, total);
			else
				give(descriptor, events[i].events);
		}
	}
}
