/* One message to and fro on one connection, many times; a tenth of them first, thrown away. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "load.h"

static const double LONGEST = 10; /* seconds for all: what is slow is measured by fewer */

int ping(char **arguments)
{
	int size = number(arguments[1]), count = number(arguments[2]), measured = 0, descriptor;
	double *times = malloc(sizeof *times * (count + 1)), begun;
	struct hello hello;

	read_hello(&hello, arguments[3]);
	descriptor = dial(arguments[0]);
	write_all(descriptor, hello.bytes, hello.size);
	if (read_all(descriptor, hello.size))
		die("hello");
	begun = now();
	for (int i = -count / 10; i < count; i++) {
		double started = now(), ended;

		write_all(descriptor, buffer, size);
		errno = ECONNRESET;
		if (read_all(descriptor, size))
			die("the connection ended");
		ended = now();
		if (i >= 0)
			times[measured++] = ended - started;
		if (ended - begun > LONGEST)
			break;
	}
	printf("{\"count\": %d, ", measured);
	tell_times(times, measured);
	printf("}\n");
	return 0;
}
