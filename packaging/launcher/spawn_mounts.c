/* The files that the program sees: a mount namespace, changed step by step.
 *
 * Steps are given as [--source WHAT] --mount KIND:FLAGS:PATH and done in their order. A "-" before a path: it may be
 * missing. Flags: r read-only, x no programs, s no set-user-id, d no devices; and of "bind" and "keep" 1: not what is
 * mounted below.
 *   set    that path and all below get the flags
 *   keep   that path is again as it was before the first step, then gets the flags
 *   allow  programs may be executed there again
 *   bind   WHAT, of the host, appears there
 *   new    a file system of its own: WHAT is its type and options with commas between
 *   hide   nothing is there, and nobody may look
 *   dev    /dev with nothing but what every program may need
 * Trees are opened before the first step (open_tree), so a step cannot hide the source of a later one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "spawn.h"

enum { STEPS_MAX = 512, NODES = 6, CAP_SYS_CHROOT_ = 18 };

struct step {
    const char *kind, *flags, *path, *source;
    size_t kind_length;
    int optional, tree;
};

static struct step steps[STEPS_MAX];
static const char *const node_names[NODES] = {"null", "zero", "full", "random", "urandom", "tty"};
static const unsigned char node_numbers[NODES][2] = {{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}};

static int is(const struct step *step, const char *kind)
{
    return strlen(kind) == step->kind_length && strncmp(step->kind, kind, step->kind_length) == 0;
}

static int has(const struct step *step, char flag)
{
    const char *found = strchr(step->flags, flag);
    return found && found < strchr(step->flags, ':');
}

int wants_mounts(const struct options *o)
{
    int at = 0;
    return o->root || next_option(o, "--mount", &at);
}

static int read_steps(const struct options *o)
{
    int count = 0;
    const char *source = NULL;
    for (int at = 1; at + 1 < o->words_end; at += 2) {
        const char *value = o->words[at + 1];
        if (strcmp(o->words[at], "--source") == 0)
            source = value;
        if (strcmp(o->words[at], "--mount") != 0)
            continue;
        const char *flags = strchr(value, ':'), *path = flags ? strchr(flags + 1, ':') : NULL;
        if (!path || count == STEPS_MAX)
            refuse("read mount", value);
        steps[count] = (struct step){.kind = value, .kind_length = (size_t)(flags - value), .flags = flags + 1,
                                     .path = path + 1, .source = source, .tree = -1};
        if (*steps[count].path == '-')
            steps[count].optional = 1, steps[count].path++;
        source = NULL;
        count++;
    }
    return count;
}

/* A copy of what is mounted there, in no place yet. Below ``root`` links lead nowhere else. */
static int copy_tree(int root, const char *path, int recursive)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = root >= 0 ? RESOLVE_IN_ROOT : 0};
    int place = (int)syscall(SYS_openat2, root >= 0 ? root : AT_FDCWD, path, &how, sizeof how);
    if (place < 0)
        return -1;
    int tree = open_tree(place, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0));
    int cause = errno;
    close(place);
    errno = cause;
    return tree;
}

static void give_flags(const struct step *step, int tree, const char *path, int clear)
{
    uint64_t flags = (has(step, 'r') ? MOUNT_ATTR_RDONLY : 0) | (has(step, 'x') ? MOUNT_ATTR_NOEXEC : 0) |
                     (has(step, 's') ? MOUNT_ATTR_NOSUID : 0) | (has(step, 'd') ? MOUNT_ATTR_NODEV : 0);
    struct mount_attr wanted = {.attr_set = clear ? 0 : flags, .attr_clr = clear ? flags : 0};
    if (flags && mount_setattr(tree, path, AT_RECURSIVE | (*path ? 0 : AT_EMPTY_PATH), &wanted, sizeof wanted) < 0)
        fail("set mount flags of", step->path);
}

/* Directories down to there, and at the end one more or an empty file. */
static void make_place(const char *path, int is_file)
{
    char *copy = strdup(path);
    for (char *slash = copy ? strchr(copy + 1, '/') : NULL; slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(copy, 0755); /* what cannot be made is told by the mount */
        *slash = '/';
    }
    free(copy);
    int fd = is_file ? open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644) : -1;
    if (fd >= 0)
        close(fd);
    if (!is_file)
        mkdir(path, 0755);
}

/* A root of its own may lack what is mounted there. */
static void prepare(const struct step *step)
{
    struct stat it;
    if (access(step->path, F_OK) < 0 && errno == ENOENT && !step->optional)
        make_place(step->path, is(step, "bind") && step->tree >= 0 && fstat(step->tree, &it) == 0 && !S_ISDIR(it.st_mode));
}

static void put(const struct step *step, int tree)
{
    int flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS, bad = move_mount(tree, "", AT_FDCWD, step->path, flags);
    if (bad && errno == ENOENT) {
        struct stat it;
        make_place(step->path, fstat(tree, &it) == 0 && !S_ISDIR(it.st_mode));
        bad = move_mount(tree, "", AT_FDCWD, step->path, flags);
    }
    if (bad && !(step->optional && (errno == ENOENT || errno == EROFS)))
        fail("mount", step->path);
    close(tree);
}

static int new_file_system(const char *source, const struct step *step)
{
    char *copy = strdup(source), *rest = copy, *type = copy ? strsep(&rest, ",") : NULL;
    int context = type ? fsopen(type, FSOPEN_CLOEXEC) : -1, bad = context < 0;
    for (char *word; !bad && (word = strsep(&rest, ",")); ) {
        char *value = strchr(word, '=');
        if (value)
            *value++ = 0;
        bad = *word && fsconfig(context, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, word, value, 0) < 0;
    }
    int made = -1;
    if (!bad && fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        made = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | (is(step, "dev") ? 0 : MOUNT_ATTR_NODEV));
    if (made < 0 && step->optional && errno == EPERM) { /* whoever runs us may not: then as before */
        if (context >= 0)
            close(context);
        free(copy);
        return -1;
    }
    if (made < 0)
        fail(step->kind_length ? "make a file system for" : "make", step->path);
    close(context);
    free(copy);
    return made;
}

/* An empty directory or file that nobody may open. It is made in a file system that is mounted for a moment. */
static void hide(const struct step *step)
{
    struct stat it;
    if (stat(step->path, &it) < 0) {
        if (errno == ENOENT && step->optional)
            return;
        fail("hide", step->path);
    }
    int fs = new_file_system("tmpfs,mode=000,size=4k,nr_inodes=2", step);
    struct mount_attr closed = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC};
    if (S_ISDIR(it.st_mode)) {
        if (mount_setattr(fs, "", AT_EMPTY_PATH, &closed, sizeof closed) < 0)
            fail("hide", step->path);
        put(step, fs);
        return;
    }
    if (mknodat(fs, "file", S_IFREG, 0) < 0 || move_mount(fs, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        fail("hide", step->path);
    int tree = open_tree(fs, "file", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0 || mount_setattr(tree, "", AT_EMPTY_PATH, &closed, sizeof closed) < 0)
        fail("hide", step->path);
    if (fchdir(fs) < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        fail("hide", step->path);
    close(fs);
    put(step, tree);
}

static int saved_nodes[NODES], saved_pts = -1, saved_shm = -1, saved_log = -1;

static void save_devices(void)
{
    for (int at = 0; at < NODES; at++) {
        char path[32];
        snprintf(path, sizeof path, "/dev/%s", node_names[at]);
        saved_nodes[at] = copy_tree(-1, path, 0);
    }
    saved_pts = copy_tree(-1, "/dev/pts", 1);
    saved_shm = copy_tree(-1, "/dev/shm", 1);
    saved_log = copy_tree(-1, "/dev/log", 0);
}

static void put_below(int tree, const char *directory, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (tree >= 0 && move_mount(tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        fail("mount", path);
    if (tree >= 0)
        close(tree);
}

static void make_devices(const struct step *step)
{
    static const char *const links[][2] = {
        {"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
        {"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"}, {"pts/ptmx", "ptmx"},
    };
    int fs = new_file_system("tmpfs,mode=0755,size=4m,nr_inodes=64k", step);
    int borrow[NODES] = {0};
    for (int at = 0; at < NODES; at++) {
        dev_t device = makedev(node_numbers[at][0], node_numbers[at][1]);
        if (mknodat(fs, node_names[at], S_IFCHR | 0666, device) < 0) { /* in a user namespace: the host's */
            borrow[at] = 1;
            if (mknodat(fs, node_names[at], S_IFREG | 0666, 0) < 0)
                fail("make", node_names[at]);
        }
    }
    for (size_t at = 0; at < sizeof links / sizeof *links; at++)
        if (symlinkat(links[at][0], fs, links[at][1]) < 0)
            fail("make", links[at][1]);
    if (mkdirat(fs, "pts", 0755) < 0 || mkdirat(fs, "shm", 01777) < 0 || (saved_log >= 0 && mknodat(fs, "log", S_IFREG | 0644, 0) < 0))
        fail("make", step->path);
    put(step, fs);
    for (int at = 0; at < NODES; at++)
        put_below(borrow[at] ? saved_nodes[at] : -1, step->path, node_names[at]);
    put_below(saved_pts, step->path, "pts");
    put_below(saved_shm, step->path, "shm");
    put_below(saved_log, step->path, "log");
    if (has(step, 'x')) {
        struct mount_attr flags = {.attr_set = MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSUID};
        if (mount_setattr(AT_FDCWD, step->path, AT_RECURSIVE, &flags, sizeof flags) < 0)
            fail("set mount flags of", step->path);
    }
}

/* Make the root anew: a copy of the old one, or of --root. Where the old one is no mount point (a bare chroot) or the
 * first one of all (an initramfs), it cannot go away; then chroot, and nobody below may leave it by chroot(2) again. */
static void enter_root(const char *path)
{
    int tree = copy_tree(-1, path, 1);
    if (tree < 0 || move_mount(tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 || fchdir(tree) < 0)
        fail("enter root", path);
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        if (umount2(".", MNT_DETACH) < 0)
            fail("enter root", path);
    } else if (chroot(".") < 0) {
        fail("enter root", path);
    } else {
        prctl(PR_CAPBSET_DROP, CAP_SYS_CHROOT_, 0, 0, 0);
    }
    if (chdir("/") < 0)
        fail("enter root", path);
    close(tree);
}

/* A bare chroot: "/" is a directory of a mount whose own root we cannot name. What we mount would appear in all its
 * copies, those of the host too. So step out of it for a moment (who may chroot may do that), and come back. */
static void make_private_around(void)
{
    static const char *const inside[] = {"/usr", "/bin", "/etc", "/dev", "/proc", "/tmp"};
    struct stat here, above;
    size_t at = 0, count = sizeof inside / sizeof *inside;
    int top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        fail("make private", "mounts");
    while (at < count && chroot(inside[at]) < 0)
        at++;
    if (at < count) {
        if (fchdir(top) < 0)
            fail("make private", "mounts");
        for (;;) { /* the root is what is above itself */
            if (stat(".", &here) < 0 || stat("..", &above) < 0 || (here.st_dev == above.st_dev && here.st_ino == above.st_ino))
                break;
            if (chdir("..") < 0)
                break;
        }
        if (chroot(".") < 0 || (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0 && errno != EINVAL))
            fail("make private", "mounts");
        if (fchdir(top) < 0 || chroot(".") < 0)
            fail("make private", "mounts");
    }
    close(top);
}

static void take(struct step *step)
{
    struct stat it;
    if (is(step, "set") || is(step, "allow")) {
        if (strcmp(step->path, "/") != 0) {
            if (stat(step->path, &it) < 0 && errno == ENOENT && step->optional)
                return;
            int tree = copy_tree(-1, step->path, 1);
            if (tree < 0)
                fail("find", step->path);
            give_flags(step, tree, "", is(step, "allow"));
            put(step, tree);
        } else {
            give_flags(step, AT_FDCWD, "/", 0);
        }
    } else if (is(step, "keep") || is(step, "bind")) {
        if (step->tree < 0)
            return; /* it may be missing, and is */
        give_flags(step, step->tree, "", 0);
        put(step, step->tree);
    } else if (is(step, "new")) {
        if (stat(step->path, &it) < 0 && errno == ENOENT && step->optional)
            return;
        int fs = new_file_system(step->source ? step->source : "", step);
        if (fs < 0)
            return;
        give_flags(step, fs, "", 0);
        put(step, fs);
    } else if (is(step, "hide")) {
        hide(step);
    } else if (is(step, "dev")) {
        make_devices(step);
    } else {
        refuse("read mount", step->kind);
    }
}

void arrange_mounts(const struct options *o)
{
    int count = read_steps(o), root = -1;
    mode_t mask = umask(0);
    if (unshare(CLONE_NEWNS) < 0) {
        fail_fence("make a namespace:", "mount");
        return;
    }
    /* What we mount shall not appear on the host; what the host mounts later shall appear here. */
    int is_mount_point = mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) == 0;
    if (!is_mount_point && errno != EINVAL)
        fail("make private", "mounts");
    if (!is_mount_point)
        make_private_around();
    if (o->root && (root = open(o->root, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
        fail("enter root", o->root);
    for (int at = 0; at < count; at++) {
        struct step *step = &steps[at];
        if (is(step, "keep"))
            step->tree = copy_tree(root, step->path, !has(step, '1'));
        else if (is(step, "bind"))
            step->tree = copy_tree(-1, step->source ? step->source : step->path, !has(step, '1'));
        else if (is(step, "dev"))
            save_devices();
        else
            continue;
        if (step->tree < 0 && !is(step, "dev") && !(errno == ENOENT && step->optional))
            fail("find", step->source ? step->source : step->path);
    }
    if (o->root || !is_mount_point)
        enter_root(o->root ? o->root : "/");
    if (root >= 0)
        close(root);
    for (int at = 0; o->root && at < count; at++) /* before a step makes all of it read-only */
        if (is(&steps[at], "dev") || is(&steps[at], "new") || is(&steps[at], "bind"))
            prepare(&steps[at]);
    for (int at = 0; at < count; at++)
        take(&steps[at]);
    umask(mask);
}
