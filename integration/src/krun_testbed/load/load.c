/* load: makes load for benchmarks, and is the server behind what is measured. One process, one thread, epoll.
 *
 *   load serve ECHO SINK SOURCE COUNTER
 *   load bulk ADDRESS up|down STREAMS SECONDS COUNTER [HELLO]
 *   load ping ADDRESS SIZE COUNT [HELLO]
 *   load connects ADDRESS AT-ONCE SECONDS [HELLO]
 *   load idle ADDRESS COUNT [HELLO]
 *   load relay ADDRESS TO copy|splice
 *
 * An address is HOST:PORT, numeric. COUNTER is a file through which the sink tells how much it took. HELLO is a file
 * whose bytes each connection sends first. Results are one JSON object on stdout.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "load.h"

static const char USAGE[] = "usage: load serve|bulk|ping|connects|idle|relay ARGUMENTS (see load.c)";

struct command {
	const char *name;
	int least; /* arguments */
	int (*run)(char **);
};

static const struct command COMMANDS[] = {
	{ "serve", 4, serve }, { "bulk", 5, bulk }, { "ping", 3, ping },
	{ "connects", 3, connects }, { "idle", 2, idle }, { "relay", 3, relay },
};

int main(int count, char **words)
{
	struct rlimit files;

	signal(SIGPIPE, SIG_IGN);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max < DESCRIPTORS ? files.rlim_max : DESCRIPTORS;
	setrlimit(RLIMIT_NOFILE, &files);
	for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++)
		if (count >= 2 && !strcmp(words[1], COMMANDS[i].name)) {
			if (count - 2 < COMMANDS[i].least)
				usage(USAGE);
			return COMMANDS[i].run(words + 2);
		}
	usage(USAGE);
	return 2;
}
