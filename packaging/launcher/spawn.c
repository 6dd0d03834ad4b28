/* spawn: the last steps between the appliance and a unit's own program, in the child, by exec (as s6's chain loading does).
 *
 *   spawn [--OPTION VALUE]... -- PROGRAM [ARGUMENT]...
 *
 * No Python runs between fork and exec. Steps are done in the order of become_program() below, whatever the order of
 * the options. When one fails, a line "STEP OBJECT: REASON" goes to descriptor 3 and the exit code is 127. Descriptor 3
 * closes itself at a successful execve: then the daemon reads an empty end. Without a descriptor 3 the line goes to
 * stderr.
 *
 *   spawn --serve
 *
 * Stays, and starts one program per request from descriptor 3, a SOCK_SEQPACKET socket, until its other end is gone.
 * The programs are the daemon's own children all the same (CLONE_PARENT), and born inside their cgroup
 * (CLONE_INTO_CGROUP): moving a process costs the kernel 6 ms and more, being born there nothing. And a fork of this
 * small process is ten times cheaper than one of the daemon. A request is
 *   uint32 words, uint32 variables, then so many NUL-terminated strings: [--OPTION VALUE]... -- PROGRAM [ARGUMENT]...,
 *   NAME=VALUE...; attached: the report descriptor, perhaps those that become 0, 1 and 2, then those that --pass names.
 * The answer is an int32: the pid, or a negative errno.
 *
 *   spawn --hold
 *
 * Keeps file descriptors for the appliance: see hold.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hold.h"
#include "spawn.h"

enum { FILES_SOFT = 1024 };

int report = STDERR_FILENO;

void fail(const char *step, const char *object)
{
    int cause = errno;
    dprintf(report, "%s %s: %s\n", step, object, strerror(cause));
    _exit(127);
}

static int lenient;

void fail_fence(const char *step, const char *object)
{
    if (!lenient)
        fail(step, object);
    dprintf(STDERR_FILENO, "appliance: going on without a fence (sandbox.lenient): cannot %s %s: %s\n", step, object,
            strerror(errno));
}

void refuse(const char *what, const char *object)
{
    dprintf(report, "%s %s: Invalid argument\n", what, object);
    _exit(127);
}

unsigned long number(const char *text, int radix, const char *what)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, radix);
    if (errno || end == text || *end || *text == '-')
        refuse(what, text);
    return value;
}

/* How many names, with colons between them. */
unsigned names_in(const char *pass)
{
    unsigned count = pass && *pass;
    for (const char *at = pass; at && *at; at++)
        count += *at == ':';
    return count > PASSED_MAX ? PASSED_MAX : count;
}

static void enter_cgroup(const char *directory)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/cgroup.procs", directory) >= (int)sizeof path)
        refuse("enter cgroup", directory);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        fail("enter cgroup", directory);
    close(fd);
}

/* What an ordinary program expects to find: default signals, none blocked, a select(2)-safe limit of open files. */
static void restore_defaults(const struct options *o, int files_are_set)
{
    static const unsigned long by_default[4]; /* the kernel's struct sigaction; libc hides its own signals from us */
    for (int number_ = 1; number_ <= 64; number_++)
        syscall(SYS_rt_sigaction, number_, by_default, NULL, 8); /* fails for SIGKILL and SIGSTOP */
    if (o->ignore_sigpipe)
        signal(SIGPIPE, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    struct rlimit files;
    if (!files_are_set && getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur > FILES_SOFT) {
        files.rlim_cur = FILES_SOFT;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

const char *next_option(const struct options *o, const char *name, int *at)
{
    for (*at += *at ? 2 : 1; *at + 1 < o->words_end; *at += 2)
        if (strcmp(o->words[*at], name) == 0)
            return o->words[*at + 1];
    return NULL;
}

static int read_options(int argc, char **argv, struct options *o)
{
    const char *many; /* looked up by those who want them */
    const struct { const char *name; const char **place; } known[] = {
        {"--cgroup", &o->cgroup}, {"--output", &o->output}, {"--output-size", &o->output_size},
        {"--directory", &o->directory}, {"--umask", &o->umask}, {"--uid", &o->uid}, {"--gid", &o->gid},
        {"--groups", &o->groups}, {"--argv0", &o->argv0}, {"--input", &o->input}, {"--pass", &o->pass},
        {"--lenient", &o->lenient}, {"--oom-score-adjust", &o->oom_score_adjust}, {"--nice", &o->nice},
        {"--scheduling", &o->scheduling}, {"--io-scheduling", &o->io_scheduling}, {"--cpus", &o->cpus},
        {"--namespaces", &o->namespaces}, {"--root", &o->root}, {"--bounding", &o->bounding},
        {"--ambient", &o->ambient}, {"--no-new-privileges", &o->no_new_privileges}, {"--seccomp", &o->seccomp},
        {"--ignore-sigpipe", &o->ignore_sigpipe},
        {"--limit", &many}, {"--source", &many}, {"--mount", &many}, {"--landlock", &many},
    };
    int at = 1;
    while (at < argc && strcmp(argv[at], "--") != 0) {
        size_t which = 0, count = sizeof known / sizeof *known;
        while (which < count && strcmp(argv[at], known[which].name) != 0)
            which++;
        if (which == count || at + 1 >= argc)
            refuse("read option", argv[at]);
        *known[which].place = argv[at + 1];
        at += 2;
    }
    o->words = argv;
    o->words_end = at;
    lenient = o->lenient != NULL;
    return at + 1; /* behind "--" */
}

static int limits_files(const struct options *o)
{
    int at = 0;
    for (const char *limit; (limit = next_option(o, "--limit", &at)); )
        if (strtol(limit, NULL, 10) == RLIMIT_NOFILE)
            return 1;
    return 0;
}

/* As execvp, but what the kernel cannot run is an error: no shell tries to make sense of it. */
static void execute(const char *path, char **argv)
{
    const char *places = getenv("PATH");
    char whole[PATH_MAX];
    int denied = 0;

    if (strchr(path, '/')) {
        execv(path, argv);
        return;
    }
    for (const char *place = places ? places : "/bin:/usr/bin";; place++) {
        int length = strchrnul(place, ':') - place;
        if (snprintf(whole, sizeof whole, "%.*s%s%s", length, place, length ? "/" : "", path) < (int)sizeof whole) {
            execv(whole, argv);
            denied |= errno == EACCES;
            if (errno != EACCES && errno != ENOENT && errno != ENOTDIR)
                return;
        }
        place += length;
        if (!*place)
            break;
    }
    errno = denied ? EACCES : ENOENT;
}

_Noreturn void become_program(int argc, char **argv, int in_cgroup)
{
    struct options o = {0};
    int program = read_options(argc, argv, &o);
    if (program >= argc)
        refuse("read", "the program to start");

    if (o.pass)
        pass_descriptors(o.pass);
    setsid(); /* fails only where we lead a group already */
    if (o.cgroup && !in_cgroup)
        enter_cgroup(o.cgroup);
    if (o.input)
        open_input(o.input);
    if (o.output)
        open_output(o.output, o.output_size, o.uid);
    set_priorities(&o);
    set_limits(&o);
    int privileged = geteuid() == 0;
    if (!privileged) /* without it we may do nothing of what follows */
        enter_user_namespace(&o, privileged);
    if (o.namespaces)
        enter_namespaces(o.namespaces);
    if (wants_mounts(&o))
        arrange_mounts(&o);
    if (o.groups)
        set_groups(o.groups);
    if (privileged) /* last of the namespaces: the others are the host's business */
        enter_user_namespace(&o, privileged);
    if (o.bounding) /* a new user namespace begins with all of them */
        drop_bounding(o.bounding);
    become(&o);
    if (o.directory && chdir(o.directory) < 0) /* as the user it will be */
        fail("enter directory", o.directory);
    if (o.umask)
        umask(number(o.umask, 8, "read umask"));
    if (o.no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail("forbid", "new privileges");
    if (o.seccomp && strchr(argv[program], '/') && faccessat(AT_FDCWD, argv[program], X_OK, AT_EACCESS) < 0)
        fail("execute", argv[program]); /* behind the filter perhaps nobody could tell */
    restrict_paths(&o);
    close_rest(o.pass);
    restore_defaults(&o, limits_files(&o));
    if (o.seccomp)
        filter_system_calls(o.seccomp); /* last: it may forbid any of the above */
    const char *path = argv[program];
    if (o.argv0)
        argv[program] = (char *)o.argv0;
    execute(path, argv + program);
    fail("execute", path);
}

/* The daemon's own place in the line for the OOM killer, far behind all others, is not its units'. */
static void give_up_shelter(void)
{
    char first = 0;
    int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    if (read(fd, &first, 1) == 1 && first == '-' && pwrite(fd, "0", 1, 0) < 0)
        dprintf(STDERR_FILENO, "appliance: oom_score_adj stays below 0: %s\n", strerror(errno));
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--hold") == 0)
        hold();
    give_up_shelter();
    if (argc == 2 && strcmp(argv[1], "--serve") == 0)
        serve();
    if (fcntl(REPORT, F_SETFD, FD_CLOEXEC) == 0)
        report = REPORT;
    become_program(argc, argv, 0);
}
