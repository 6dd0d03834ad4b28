/* Paths for who may not mount: Landlock gives access by rules, BITS:PATH, and what no rule gives is refused. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "spawn.h"

/* From linux/landlock.h, which older Debian headers have only in part. */
enum { CREATE_RULESET = 444, ADD_RULE, RESTRICT_SELF, PATH_BENEATH = 1, GET_VERSION = 1, FILES_ONLY = 0x7 | 1 << 14 };

struct ruleset { uint64_t access_fs; };
struct __attribute__((packed)) beneath { uint64_t access; int32_t parent; };

static uint64_t known_accesses(void)
{
    long version = syscall(CREATE_RULESET, NULL, 0, GET_VERSION);
    if (version < 1)
        return 0;
    return version == 1 ? 0x1fff : version == 2 ? 0x3fff : version < 5 ? 0x7fff : 0xffff;
}

void restrict_paths(const struct options *o)
{
    int at = 0;
    const char *rule = next_option(o, "--landlock", &at);
    if (!rule)
        return;
    struct ruleset wanted = {known_accesses()};
    int rules = wanted.access_fs ? (int)syscall(CREATE_RULESET, &wanted, sizeof wanted, 0) : -1;
    if (rules < 0) {
        fail_fence("restrict", "paths with Landlock");
        return;
    }
    for (; rule; rule = next_option(o, "--landlock", &at)) {
        char *path;
        struct beneath one = {.access = strtoull(rule, &path, 16) & wanted.access_fs};
        if (*path != ':')
            refuse("read rule", rule);
        path++;
        int optional = *path == '-';
        one.parent = open(path + optional, O_PATH | O_CLOEXEC);
        if (one.parent < 0 && optional && errno == ENOENT)
            continue;
        if (one.parent < 0)
            fail("allow", path);
        if (syscall(ADD_RULE, rules, PATH_BENEATH, &one, 0) < 0) {
            one.access &= FILES_ONLY; /* a file, no directory */
            if (syscall(ADD_RULE, rules, PATH_BENEATH, &one, 0) < 0)
                fail("allow", path);
        }
        close(one.parent);
    }
    if (syscall(RESTRICT_SELF, rules, 0) < 0)
        fail_fence("restrict", "paths with Landlock");
    close(rules);
}
