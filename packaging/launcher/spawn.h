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
    const char *argv0;     /* what the program is told it is called */
    const char *umask;     /* octal */
    const char *uid, *gid; /* numbers */
    const char *groups;    /* numbers with commas, "" for none */
    const char *input;     /* file for 0 */
    const char *pass;      /* names with colons of the descriptors from 4 on, which become 3, 4, ... */

    /* Fences. Numbers and lists are made by the daemon (appliance/units/fences.py). */
    const char *lenient;          /* a fence that cannot be put up is told on stderr, and left out */
    const char *oom_score_adjust;
    const char *nice;
    const char *scheduling;       /* POLICY:PRIORITY, POLICY with SCHED_RESET_ON_FORK perhaps */
    const char *io_scheduling;    /* CLASS:LEVEL */
    const char *cpus;             /* numbers with commas */
    const char *namespaces;       /* CLONE_NEW* flags, hexadecimal: all but the mount namespace */
    const char *root;             /* becomes "/" */
    const char *bounding;         /* capabilities that may remain, hexadecimal */
    const char *ambient;          /* capabilities that are kept over the change of user, hexadecimal */
    const char *no_new_privileges;
    const char *ignore_sigpipe;
    const char *seccomp;          /* struct sock_filter[], hexadecimal bytes */

    char **words;                 /* all options, for those that may come more than once: --limit, --mount, --landlock */
    int words_end;
};

extern int report; /* where a failure is told; stderr when nobody listens */

_Noreturn void fail(const char *step, const char *object);   /* with the reason in errno */
void fail_fence(const char *step, const char *object);       /* the same; comes back where that is allowed */
_Noreturn void refuse(const char *what, const char *object); /* a request that makes no sense */
unsigned long number(const char *text, int radix, const char *what);

/* spawn.c */
_Noreturn void become_program(int argc, char **argv, int in_cgroup);
unsigned names_in(const char *pass);
const char *next_option(const struct options *o, const char *name, int *at); /* *at is 0 at first */

/* spawn_serve.c */
_Noreturn void serve(void);

/* spawn_io.c */
void open_input(const char *path);
void open_output(const char *path, const char *size, const char *uid);
void pass_descriptors(const char *names);
void close_rest(const char *names);

/* spawn_user.c */
void drop_bounding(const char *mask);
void set_groups(const char *groups);
void become(const struct options *o);

/* spawn_limits.c */
void set_limits(const struct options *o);
void set_priorities(const struct options *o);

/* spawn_namespaces.c */
void enter_namespaces(const char *flags);
void enter_user_namespace(const struct options *o, int privileged);

/* spawn_mounts.c */
int wants_mounts(const struct options *o);
void arrange_mounts(const struct options *o);

/* spawn_landlock.c */
void restrict_paths(const struct options *o);

/* spawn_seccomp.c */
void filter_system_calls(const char *program);
