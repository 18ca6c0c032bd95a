/* Sockets, clocks and files, as the commands need them. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

char buffer[BUFFER];

double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

void die(const char *what)
{
	fprintf(stderr, "load: error: %s: %s\n", what, strerror(errno));
	exit(1);
}

void usage(const char *text)
{
	fprintf(stderr, "%s\n", text);
	exit(2);
}

int number(const char *text)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (*end || end == text || value < 0 || value > 1000000000)
		usage("load: error: not a number");
	return value;
}

static struct sockaddr_in parse(const char *text)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	char host[64];
	const char *colon = strrchr(text, ':');

	if (!colon || colon - text >= (long)sizeof host)
		usage("load: error: an address is HOST:PORT");
	memcpy(host, text, colon - text);
	host[colon - text] = 0;
	address.sin_port = htons(number(colon + 1));
	if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
		usage("load: error: a host is a numeric IPv4 address");
	return address;
}

int listen_at(const char *text)
{
	struct sockaddr_in address = parse(text);
	int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;

	setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(descriptor, (void *)&address, sizeof address) || listen(descriptor, 4096))
		die(text);
	return descriptor;
}

int dial(const char *text)
{
	struct sockaddr_in address = parse(text);
	int descriptor = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(descriptor, (void *)&address, sizeof address))
		die(text);
	at_once(descriptor);
	return descriptor;
}

int begin_dial(const char *text)
{
	struct sockaddr_in address = parse(text);
	int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	at_once(descriptor);
	if (connect(descriptor, (void *)&address, sizeof address) && errno != EINPROGRESS)
		die(text);
	return descriptor;
}

void non_blocking(int descriptor)
{
	fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK);
}

void at_once(int descriptor)
{
	int on = 1;

	setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void write_all(int descriptor, const char *bytes, int size)
{
	while (size > 0) {
		int done = write(descriptor, bytes, size);

		if (done <= 0)
			die("write");
		bytes += done;
		size -= done;
	}
}

int read_all(int descriptor, int size)
{
	while (size > 0) {
		int done = read(descriptor, buffer, size < BUFFER ? size : BUFFER);

		if (done <= 0)
			return -1;
		size -= done;
	}
	return 0;
}

static void control(int poll, int how, int descriptor, uint32_t events, uint64_t data)
{
	struct epoll_event event = { .events = events, .data.u64 = data };

	if (epoll_ctl(poll, how, descriptor, &event))
		die("epoll_ctl");
}

void watch(int poll, int descriptor, uint32_t events, uint64_t data)
{
	control(poll, EPOLL_CTL_ADD, descriptor, events, data);
}

void watch_again(int poll, int descriptor, uint32_t events, uint64_t data)
{
	control(poll, EPOLL_CTL_MOD, descriptor, events, data);
}

void read_hello(struct hello *hello, const char *path)
{
	FILE *file;

	hello->size = 0;
	if (!path)
		return;
	file = fopen(path, "rb");
	if (!file)
		die(path);
	hello->size = fread(hello->bytes, 1, sizeof hello->bytes, file);
	fclose(file);
}

volatile uint64_t *counter(const char *path)
{
	int descriptor = open(path, O_RDWR | O_CREAT, 0600);
	void *memory;

	if (descriptor < 0 || ftruncate(descriptor, sizeof(uint64_t)))
		die(path);
	memory = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
	if (memory == MAP_FAILED)
		die(path);
	close(descriptor);
	return memory;
}

static int compare(const void *one, const void *other)
{
	double x = *(const double *)one, y = *(const double *)other;

	return x < y ? -1 : x > y;
}

void tell_times(double *seconds, int count)
{
	if (!count) {
		errno = ETIMEDOUT;
		die("nothing was measured");
	}
	qsort(seconds, count, sizeof *seconds, compare);
	printf("\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f", seconds[count / 2] * 1e6,
	       seconds[(long)count * 99 / 100] * 1e6, seconds[count - 1] * 1e6);
}
