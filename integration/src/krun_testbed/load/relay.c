/* The least that a proxy does: bytes from one socket to another, copied or spliced. What a tunnel is held against. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

enum { PIPE = 1 << 20, TURNS = 16 };

/* One direction; that of the other way is found by ``to``. */
struct way {
	int from, to, pipe[2], have, sent;
	char *bytes;
};

static struct way *ways[DESCRIPTORS];
static int is_spliced;

/* Move what is there: -1 when the way has ended, 1 when there may be more. */
static int move(struct way *way)
{
	for (int turn = 0; turn < TURNS; turn++) {
		int size;

		if (way->have) {
			size = is_spliced ? splice(way->pipe[0], NULL, way->to, NULL, way->have, SPLICE_F_NONBLOCK) :
					    send(way->to, way->bytes + way->sent, way->have, MSG_NOSIGNAL);
			if (size < 0)
				return errno == EAGAIN ? 0 : -1;
			way->have -= size;
			way->sent += size;
			if (way->have)
				return 0;
		}
		way->sent = 0;
		size = is_spliced ? splice(way->from, NULL, way->pipe[1], NULL, PIPE, SPLICE_F_NONBLOCK) :
				    read(way->from, way->bytes, BUFFER);
		if (size == 0)
			return -1;
		if (size < 0)
			return errno == EAGAIN ? 0 : -1;
		way->have = size;
	}
	return 1;
}

/* Move, and have told again what may be left: an edge is told once. */
static int serve_way(int poll, struct way *way)
{
	int result = move(way);

	if (result > 0)
		watch_again(poll, way->from, EPOLLIN | EPOLLOUT | EPOLLET, way->from);
	return result < 0;
}

static void make(int from, int to)
{
	struct way *way = calloc(1, sizeof *way);

	way->from = from;
	way->to = to;
	if (!is_spliced)
		way->bytes = malloc(BUFFER);
	else if (pipe2(way->pipe, O_NONBLOCK) || fcntl(way->pipe[0], F_SETPIPE_SZ, PIPE) < 0)
		die("pipe");
	ways[from] = way;
}

static void end(struct way *way)
{
	ways[way->from] = NULL;
	close(way->from);
	if (is_spliced) {
		close(way->pipe[0]);
		close(way->pipe[1]);
	}
	free(way->bytes);
	free(way);
}

int relay(char **arguments)
{
	int listener = listen_at(arguments[0]), poll = epoll_create1(0);
	struct epoll_event events[256];

	is_spliced = !strcmp(arguments[2], "splice");
	watch(poll, listener, EPOLLIN, listener);
	for (;;) {
		int count = epoll_wait(poll, events, 256, -1);

		for (int i = 0; i < count; i++) {
			int descriptor = events[i].data.fd, connected, other;
			struct way *way = ways[descriptor], *back;

			while (descriptor == listener && (connected = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
				at_once(connected);
				other = dial(arguments[1]);
				non_blocking(other);
				make(connected, other);
				make(other, connected);
				watch(poll, connected, EPOLLIN | EPOLLOUT | EPOLLET, connected);
				watch(poll, other, EPOLLIN | EPOLLOUT | EPOLLET, other);
			}
			if (!way)
				continue;
			back = ways[way->to];
			if (serve_way(poll, way) || serve_way(poll, back)) {
				end(way);
				end(back);
			}
		}
	}
}
