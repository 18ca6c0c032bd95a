/* Connections that are opened, used once, and then only there, until stdin ends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "load.h"

int idle(char **arguments)
{
	struct hello hello;
	char byte;

	read_hello(&hello, arguments[2]);
	for (int count = number(arguments[1]); count > 0; count--) {
		int descriptor = dial(arguments[0]);

		write_all(descriptor, hello.bytes, hello.size);
		write_all(descriptor, "x", 1);
		errno = ECONNRESET;
		if (read_all(descriptor, hello.size + 1))
			die("a connection ended");
	}
	printf("ready\n");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
