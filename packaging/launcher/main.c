// The launcher: the first part of the file `appliance`, statically linked, in front of the packed program.
//
//     1. Pick: unless another launcher started us, read the slot record below --root and start that slot's file instead of
//        ourselves, with a try spent and a guard beside it when it is a new version on trial.
//     2. Unpack our payload, once per version and host, into a place of ours.
//     3. Become the program in it, by execve: one process, the pid we were given.
//
// APPLIANCE_LAUNCHER=unpack stops after step 2 (without step 1) and prints the directory; =debug says each step on stderr.
#define _GNU_SOURCE
#include "guard.h"
#include "place.h"
#include "say.h"
#include "slots.h"
#include "turn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

struct arguments {
    const char *root;
    bool is_run;  // the daemon; every other verb only asks and spends no try
};

// Only what picking a slot needs; the program itself parses the command line strictly.
static struct arguments read_arguments(char **argv) {
    static const char *const WITH_VALUE[] = {"--config", "--output", "-o", NULL};
    const char *root = getenv("APPLIANCE_ROOT"), *verb = NULL;
    for (char **at = argv[0] ? argv + 1 : argv; *at && strcmp(*at, "--"); at++) {
        if (!strcmp(*at, "--root") && at[1]) {
            root = *++at;
            continue;
        }
        if (!strncmp(*at, "--root=", 7))
            root = *at + 7;
        for (int i = 0; WITH_VALUE[i]; i++)
            if (!strcmp(*at, WITH_VALUE[i]) && at[1]) {
                at++;
                goto next;
            }
        if (!verb && **at != '-')
            verb = *at;
    next:;
    }
    return (struct arguments){root && *root ? root : "/", verb && !strcmp(verb, "run")};
}

// As the first process of a machine or container there may be no /proc, no /dev and no standard streams.
static void furnish(void) {
    if (getpid() == 1) {
        if (access("/proc/self/stat", F_OK)) {
            mkdir("/proc", 0555);
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
        }
        if (access("/dev/null", F_OK)) {
            mkdir("/dev", 0755);
            mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
        }
    }
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_WRONLY : O_RDONLY) < 0)
            open("/", O_PATH);  // at least keeps our own files off these numbers
}

static int open_own_file(char path[PATH_MAX]) {
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
    if (length > 0) {
        path[length] = 0;
        int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            return fd;
    }
    const char *started_as = (const char *)getauxval(AT_EXECFN);  // there is no /proc
    if (!started_as || !realpath(started_as, path))
        return -1;
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void set(const char *name, const char *value) { setenv(name, value, 1); }

// What arrives while a trial is being started waits until Python listens, and unblocks it: a stop that killed the half
// started daemon would look like a crash to the guard.
static void hold_signals(sigset_t *old) {
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGHUP);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGPWR);
    sigprocmask(SIG_BLOCK, &held, old);
}

static void start_slot(struct slots *slots, const struct choice *choice, const char *root, const char *origin, char **argv) {
    static const char *const NAMES[2] = {"a", "b"};
    pid_t guard = choice->trial && getpid() != 1 ? guard_start(slots, choice->slot, root, origin, argv) : -1;
    char number[16];
    snprintf(number, sizeof number, "%d", guard);
    set("APPLIANCE_SLOT", NAMES[choice->slot]);
    set("APPLIANCE_TRIAL", choice->trial ? "1" : "0");
    set("APPLIANCE_ORIGIN", origin);
    if (guard > 0)
        set("APPLIANCE_GUARD", number);
    if (*notes())
        set("APPLIANCE_NOTE", notes());
    if (choice->trial)
        turn_pass_on();
    debug("start slot %s%s: %s", NAMES[choice->slot], choice->trial ? " on trial" : "", choice->file);
    sigset_t old;
    sigprocmask(SIG_BLOCK, NULL, &old);
    if (choice->trial)
        hold_signals(NULL);
    execve(choice->file, argv, environ);
    note("slot %s cannot be started: %s: %s", NAMES[choice->slot], choice->file, strerror(errno));
    guard_stop(guard);
    turn_end();
    sigprocmask(SIG_SETMASK, &old, NULL);
    slots->exists[choice->slot] = false;
    unsetenv("APPLIANCE_SLOT");
    unsetenv("APPLIANCE_TRIAL");
    unsetenv("APPLIANCE_GUARD");
}

// Returns only when this very file shall run.
static void pick(const struct payload *payload, const char *own_path, char **argv) {
    struct arguments arguments = read_arguments(argv);
    struct slots slots;
    if (!slots_read(arguments.root, &slots))
        return;
    bool is_slot = slots_hold(&slots, payload->fd);
    if (slots.has_record && !is_slot && strcmp(slots.record.base, payload->text.payload_id)) {
        debug("not the file that seeded the slots: a person has put it here");
        return;
    }
    for (int attempt = 0; attempt < 2; attempt++) {
        struct choice choice = slots_choose(&slots, arguments.is_run);
        if (choice.slot < 0)
            return;
        start_slot(&slots, &choice, arguments.root, own_path, argv);
    }
}

// A slot that cannot be unpacked is left: the origin picks anew after a trial, and runs itself after a blessed one.
static void go_back(const char *own_path, char **argv) {
    const char *origin = getenv("APPLIANCE_ORIGIN"), *slot = getenv("APPLIANCE_SLOT"), *guard = getenv("APPLIANCE_GUARD");
    const char *trial = getenv("APPLIANCE_TRIAL");
    if (!origin || !slot || !strcmp(slot, "none"))
        return;
    note("slot %s cannot be started: %s: cannot %s", slot, own_path, why_not());
    guard_stop(guard ? atoi(guard) : -1);
    unsetenv("APPLIANCE_GUARD");
    turn_end();
    if (trial && *trial == '1')
        unsetenv("APPLIANCE_SLOT");
    else
        set("APPLIANCE_SLOT", "none");
    set("APPLIANCE_TRIAL", "0");
    set("APPLIANCE_NOTE", notes());
    execve(origin, argv, environ);
}

static void become_program(const struct payload *payload, const struct place *place, const char *own_path, char **argv) {
    char program[PATH_MAX], number[16];
    if (!path_of(program, "%s/appliance", place->directory))
        return;
    snprintf(number, sizeof number, "%d", place->lock_fd);
    if (!getenv("APPLIANCE_SLOT"))
        set("APPLIANCE_SLOT", "none");
    if (!getenv("APPLIANCE_ORIGIN"))
        set("APPLIANCE_ORIGIN", own_path);
    set("APPLIANCE_SELF", own_path);
    set("APPLIANCE_PAYLOAD", payload->text.payload_id);
    set("APPLIANCE_BUNDLE", place->directory);
    if (place->lock_fd >= 0) {
        fcntl(place->lock_fd, F_SETFD, 0);
        set("APPLIANCE_LOCK_FD", number);
    }
    if (*notes())
        set("APPLIANCE_NOTE", notes());
    // PyInstaller's program would start itself a second time, only to set LD_LIBRARY_PATH, which ours does not need and
    // which every child would get. These tell it that it has done so.
    set("_PYI_ARCHIVE_FILE", program);
    set("_PYI_PARENT_PROCESS_LEVEL", "-1");
    set("_PYI_LINUX_PROCESS_NAME", "appliance");
    unsetenv("_PYI_APPLICATION_HOME_DIR");
    // The host's libraries do not fit the bundled glibc.
    unsetenv("LD_LIBRARY_PATH");
    unsetenv("LD_PRELOAD");
    if (access("/proc/self/exe", F_OK))
        argv[0] = program;  // all it then has to find itself by
    debug("become %s", program);
    execve(program, argv, environ);
    cannot("start %s", program);
}

int main(int argc, char **argv) {
    char own_path[PATH_MAX] = "appliance", *no_arguments[] = {"appliance", NULL};
    struct payload payload;
    struct place place;
    if (argc < 1)
        argv = no_arguments;
    const char *mode = getenv("APPLIANCE_LAUNCHER");
    bool only_unpack = mode && !strcmp(mode, "unpack");
    debugging = mode && !strcmp(mode, "debug");
    furnish();
    if (!getenv("APPLIANCE_SLOT")) {  // a person or an init started us, not another launcher: nothing older counts
        unsetenv("APPLIANCE_TRIAL");
        unsetenv("APPLIANCE_ORIGIN");
        unsetenv("APPLIANCE_GUARD");
        unsetenv("APPLIANCE_LOCK_FD");
        unsetenv("APPLIANCE_START_FD");
    }
    if (getenv("APPLIANCE_NOTE"))
        note("%s", getenv("APPLIANCE_NOTE"));  // from the launcher or guard that started us
    int fd = open_own_file(own_path);
    if (fd < 0) {
        cannot("open the launcher's own file");
    } else if (payload_find(fd, &payload)) {
        if (!only_unpack && !getenv("APPLIANCE_SLOT"))
            pick(&payload, own_path, argv);
        if (place_find_or_make(&payload, &place)) {
            if (only_unpack) {
                puts(place.directory);
                return fflush(stdout) ? 1 : 0;
            }
            become_program(&payload, &place, own_path, argv);
        }
    }
    if (!only_unpack)
        go_back(own_path, argv);
    fprintf(stderr, "appliance: cannot %s\n", why_not());
    return 1;
}
