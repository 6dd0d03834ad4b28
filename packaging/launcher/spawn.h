/* spawn, its parts: the options, and the steps that become_program() takes in its order. Each step says by itself what
 * failed and ends the process: see spawn.c. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

enum { REPORT = 3, PASSED_MAX = 240, WORDS_MAX = 8192 };

struct options {
    const char *cgroup;    /* directory whose cgroup.procs takes us */
    const char *output;    /* named pipe for 1 and 2 */
    const char *output_size; /* wanted size of that pipe */
    const char *directory; /* working directory */
    const char *umask;     /* octal */
    const char *uid, *gid; /* numbers */
    const char *groups;    /* numbers with commas, "" for none */
    const char *input;     /* file for 0 */
    const char *pass;      /* names with colons of the descriptors from 4 on, which become 3, 4, ... */
};

extern int report; /* where a failure is told; stderr when nobody listens */

_Noreturn void fail(const char *step, const char *object);   /* with the reason in errno */
_Noreturn void refuse(const char *what, const char *object); /* a request that makes no sense */
unsigned long number(const char *text, int radix, const char *what);

/* spawn.c */
_Noreturn void become_program(int argc, char **argv, int in_cgroup);
unsigned names_in(const char *pass);

/* spawn_serve.c */
_Noreturn void serve(void);

/* spawn_io.c */
void open_input(const char *path);
void open_output(const char *path, const char *size, const char *uid);
void pass_descriptors(const char *names);
void close_rest(const char *names);

/* spawn_user.c */
void become(const struct options *o);
