/* What the parts of the load generator share. */
#ifndef LOAD_H
#define LOAD_H

#include <stdint.h>
#include <sys/epoll.h>

enum { BUFFER = 256 * 1024, TAKE = 4 * 1024 * 1024, HELLO = 16 * 1024, DESCRIPTORS = 65536 };

/* Bytes that a connection sends before all else: a TLS ClientHello, or none. */
struct hello {
	int size;
	char bytes[HELLO];
};

extern char buffer[BUFFER];

double now(void);
void die(const char *what);
void usage(const char *text);
int number(const char *text);

int listen_at(const char *address);
int dial(const char *address); /* connected, blocking */
int begin_dial(const char *address); /* being connected, non-blocking */
void non_blocking(int descriptor);
void at_once(int descriptor); /* without Nagle's delay */
void write_all(int descriptor, const char *bytes, int size);
int read_all(int descriptor, int size); /* into the buffer, thrown away; -1 at the end */
void watch(int poll, int descriptor, uint32_t events, uint64_t data);
void watch_again(int poll, int descriptor, uint32_t events, uint64_t data);

void read_hello(struct hello *hello, const char *path); /* NULL: none */
volatile uint64_t *counter(const char *path); /* shared between processes */
void tell_times(double *seconds, int count); /* p50, p99, max in microseconds, as members of a JSON object */

int serve(char **arguments);
int bulk(char **arguments);
int ping(char **arguments);
int connects(char **arguments);
int idle(char **arguments);
int relay(char **arguments);

#endif
