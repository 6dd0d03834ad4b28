/* Who the program is, and what it may do besides. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "spawn.h"

enum { GROUPS_MAX = 256, CAPABILITIES_MAX = 63 };

void set_groups(const char *groups)
{
    gid_t list[GROUPS_MAX];
    size_t count = 0;
    char *copy = strdup(groups), *rest = copy;
    for (char *word; copy && (word = strsep(&rest, ",")); )
        if (*word && count < GROUPS_MAX)
            list[count++] = number(word, 10, "read group");
    if (setgroups(count, list) < 0)
        fail("set groups", groups);
    free(copy);
}

/* What no program below may ever have, whatever it executes. */
void drop_bounding(const char *mask)
{
    unsigned long keep = number(mask, 16, "read capabilities");
    for (int capability = 0; capability <= CAPABILITIES_MAX; capability++) {
        int has = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
        if (has < 0)
            return; /* this kernel knows no more of them */
        if (has && !(keep >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
            fail_fence("drop capabilities", mask);
            return;
        }
    }
}

static void write_capabilities(unsigned long permitted, unsigned long inheritable)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    for (int half = 0; half < 2; half++)
        data[half] = (struct __user_cap_data_struct){
            .effective = (uint32_t)(permitted >> 32 * half),
            .permitted = (uint32_t)(permitted >> 32 * half),
            .inheritable = (uint32_t)(inheritable >> 32 * half),
        };
    if (syscall(SYS_capset, &head, data) < 0)
        fail("set", "capabilities");
}

static unsigned long permitted_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &head, data) < 0)
        fail("read", "capabilities");
    return data[0].permitted | (unsigned long)data[1].permitted << 32;
}

/* Group and user. Another user keeps, over the change, the ambient ones, and for a system call filter without
 * no_new_privileges CAP_SYS_ADMIN: execve takes that one away. */
void become(const struct options *o)
{
    unsigned long ambient = o->ambient ? number(o->ambient, 16, "read capabilities") : 0, keep = ambient;
    if (o->seccomp && !o->no_new_privileges)
        keep |= 1UL << CAP_SYS_ADMIN;
    if (keep && o->uid && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        fail("keep", "capabilities");
    if (o->gid && setresgid(number(o->gid, 10, "read gid"), number(o->gid, 10, "read gid"), number(o->gid, 10, "read gid")) < 0)
        fail("set group", o->gid);
    if (o->uid && setresuid(number(o->uid, 10, "read uid"), number(o->uid, 10, "read uid"), number(o->uid, 10, "read uid")) < 0)
        fail("set user", o->uid);
    if (keep && geteuid() != 0)
        write_capabilities(keep & permitted_capabilities(), ambient & permitted_capabilities());
    else if (ambient)
        write_capabilities(permitted_capabilities(), ambient);
    for (int capability = 0; capability <= CAPABILITIES_MAX; capability++)
        if (ambient >> capability & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
            fail_fence("hand on ambient capabilities", o->ambient);
}
