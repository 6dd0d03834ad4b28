/* Who the program is. */
#define _GNU_SOURCE
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "spawn.h"

enum { GROUPS_MAX = 256 };

void become(const struct options *o)
{
    if (o->groups) {
        gid_t list[GROUPS_MAX];
        size_t count = 0;
        char *copy = strdup(o->groups), *rest = copy;
        for (char *word; copy && (word = strsep(&rest, ",")); )
            if (*word && count < GROUPS_MAX)
                list[count++] = number(word, 10, "read group");
        if (setgroups(count, list) < 0)
            fail("set groups", o->groups);
        free(copy);
    }
    if (o->gid && setresgid(number(o->gid, 10, "read gid"), number(o->gid, 10, "read gid"), number(o->gid, 10, "read gid")) < 0)
        fail("set group", o->gid);
    if (o->uid && setresuid(number(o->uid, 10, "read uid"), number(o->uid, 10, "read uid"), number(o->uid, 10, "read uid")) < 0)
        fail("set user", o->uid);
}
