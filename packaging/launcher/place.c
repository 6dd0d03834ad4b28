#define _GNU_SOURCE
#include "place.h"
#include "say.h"
#include "unpack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { BASES_MAX = 16, KEEP_NEWEST = 3, ID_LENGTH = 64, LOCK_WAIT_SECONDS = 60 };

struct base {
    char path[PATH_MAX];
    bool ours;  // we may make it and unpack into it; else it is only looked into
};

static struct base bases[BASES_MAX];
static int base_count;

// Directories that are empty on nearly every host: a tmpfs over one of them hides nothing.
static const char *const MOUNT_POINTS[] = {"/run/appliance-cache", "/mnt", "/media", "/srv", "/opt", "/tmp", "/run", NULL};
static const char TEMP[] = ".tmp.";

static void add_base(bool ours, const char *directory, const char *name) {
    if (base_count < BASES_MAX && directory && directory[0] == '/' &&
        path_of(bases[base_count].path, "%s%s", directory, name))
        bases[base_count++].ours = ours;
}

static void list_bases(void) {
    char own[64];
    snprintf(own, sizeof own, "/appliance-%u", geteuid());
    bool root = geteuid() == 0;
    base_count = 0;
    add_base(true, getenv("APPLIANCE_CACHE"), "");
    add_base(false, "/usr/lib/appliance", "");  // where our own OS image holds it unpacked
    add_base(root, "/var/cache/appliance", "");
    add_base(root, "/run/appliance-cache", "");
    if (root) {
        for (int i = 1; MOUNT_POINTS[i]; i++)  // where an earlier start has mounted its own tmpfs
            add_base(false, MOUNT_POINTS[i], "/appliance-cache");
        return;
    }
    add_base(true, getenv("XDG_CACHE_HOME"), "/appliance");
    const char *home = getenv("HOME");
    add_base(true, home && strcmp(home, "/") ? home : NULL, "/.cache/appliance");
    add_base(true, "/var/tmp", own);
    add_base(true, "/tmp", own);
    add_base(true, "/dev/shm", own);
}

// Nobody but us, or root, can have put programs there.
static bool is_trusted(const char *path) {
    struct stat info;
    errno = 0;
    if (lstat(path, &info))
        return cannot("use %s", path);
    if (!S_ISDIR(info.st_mode) || (info.st_uid != 0 && info.st_uid != geteuid()) || info.st_mode & 022)
        return cannot("use %s: it is not a directory that only its owner, us or root, can write", path);
    struct statvfs system;
    if (statvfs(path, &system) || system.f_flag & ST_NOEXEC)
        return cannot("use %s: it is mounted noexec", path);
    return true;
}

// Opens <base>/<id> if it is there, with a shared lock so that nobody sweeps it.
static bool open_place(const struct base *base, const char *id, struct place *place) {
    char program[PATH_MAX];
    if (!is_trusted(base->path) || !path_of(place->directory, "%s/%s", base->path, id) ||
        !path_of(program, "%s/appliance", place->directory))
        return false;
    for (int attempt = 0; attempt < 3; attempt++) {
        struct stat held, there;
        place->lock_fd = open(place->directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (place->lock_fd < 0)
            return cannot("open %s", place->directory);
        // Not waited for: whoever may read the directory may hold its lock. A sweeper that does renames it away at once.
        bool locked = !flock(place->lock_fd, LOCK_SH | LOCK_NB);
        if (!fstat(place->lock_fd, &held) && !stat(place->directory, &there) && held.st_ino == there.st_ino &&
            held.st_dev == there.st_dev && !access(program, X_OK)) {
            if (!locked) {
                close(place->lock_fd);
                place->lock_fd = -1;
            }
            return true;
        }
        close(place->lock_fd);
    }
    return cannot("start %s", program);
}

static void make_parents(const char *path) {
    char part[PATH_MAX];
    if (!path_of(part, "%s", path))
        return;
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(part, geteuid() ? 0700 : 0755);
        *slash = '/';
    }
    mkdir(part, 0755);
}

static bool has_room(const struct base *base, const struct payload *payload) {
    struct statvfs system;
    uint64_t needed = payload->footer.unpacked + payload->footer.unpacked / 8;
    make_parents(base->path);
    if (!is_trusted(base->path))
        return false;
    if (access(base->path, W_OK | X_OK) || statvfs(base->path, &system))
        return cannot("write in %s", base->path);
    errno = 0;
    if ((uint64_t)system.f_bavail * system.f_frsize < needed)
        return cannot("unpack in %s: it has no room for %llu MB", base->path, (unsigned long long)needed >> 20);
    return true;
}

// One process at a time makes and sweeps in a base. The file is not readable by others, so they cannot hold it up.
static int lock_base(const struct base *base) {
    char path[PATH_MAX];
    if (!path_of(path, "%s/.lock", base->path))
        return -1;
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        cannot("lock %s", path);
        return -1;
    }
    struct timespec now;  // not the wall clock: it may be set from 1970 to today while we wait
    clock_gettime(CLOCK_MONOTONIC, &now);
    time_t limit = now.tv_sec + LOCK_WAIT_SECONDS;
    while (flock(fd, LOCK_EX | LOCK_NB)) {
        int error = errno;
        clock_gettime(CLOCK_MONOTONIC, &now);
        errno = error;
        if (error != EWOULDBLOCK || now.tv_sec > limit) {
            cannot("lock %s", path);
            close(fd);
            return -1;
        }
        usleep(10000);
    }
    return fd;
}

// What a killed start left behind. Only with the base locked: then nobody is at work in it.
static void sweep_temps(const struct base *base) {
    DIR *directory = opendir(base->path);
    char path[PATH_MAX];
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (!strncmp(entry->d_name, TEMP, strlen(TEMP)) && path_of(path, "%s/%s", base->path, entry->d_name))
            remove_tree(path);
    if (directory)
        closedir(directory);
}

static bool remove_if_unused(const struct base *base, const char *id) {
    char path[PATH_MAX], temp[PATH_MAX];
    if (!path_of(path, "%s/%s", base->path, id) || !path_of(temp, "%s/%s%s", base->path, TEMP, id))
        return false;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool removed = fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) && !rename(path, temp);
    if (removed) {
        debug("sweep %s", path);
        remove_tree(temp);
    }
    if (fd >= 0)
        close(fd);
    return removed;
}

struct old {
    char id[ID_LENGTH + 1];
    struct timespec made;
};

static int newest_first(const void *left, const void *right) {
    const struct timespec *a = &((const struct old *)left)->made, *b = &((const struct old *)right)->made;
    if (a->tv_sec != b->tv_sec)
        return a->tv_sec < b->tv_sec ? 1 : -1;
    return a->tv_nsec < b->tv_nsec ? 1 : a->tv_nsec > b->tv_nsec ? -1 : 0;
}

static void sweep_old_ids(const struct base *base, const char *own_id) {
    enum { OLD_MAX = 64 };
    struct old found[OLD_MAX];
    size_t count = 0;
    DIR *directory = opendir(base->path);
    for (struct dirent *entry; directory && count < OLD_MAX && (entry = readdir(directory));) {
        struct stat info;
        if (strlen(entry->d_name) != ID_LENGTH || strspn(entry->d_name, "0123456789abcdef") != ID_LENGTH ||
            fstatat(dirfd(directory), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(info.st_mode))
            continue;
        strcpy(found[count].id, entry->d_name);
        found[count++].made = info.st_mtim;
    }
    if (directory)
        closedir(directory);
    qsort(found, count, sizeof *found, newest_first);
    for (size_t i = KEEP_NEWEST; i < count; i++)
        if (strcmp(found[i].id, own_id))
            remove_if_unused(base, found[i].id);
}

static bool sync_directory(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool done = fd >= 0 && !fsync(fd);
    if (fd >= 0)
        close(fd);
    return done || cannot("sync %s", path);
}

static bool make_place(const struct base *base, const struct payload *payload, struct place *place) {
    char temp[PATH_MAX], directory[PATH_MAX];
    const char *id = payload->text.payload_id;
    if (!has_room(base, payload))
        return false;
    int lock = lock_base(base);
    if (lock < 0)
        return false;
    bool made = open_place(base, id, place);  // somebody else was faster
    if (!made && path_of(directory, "%s/%s", base->path, id) && path_of(temp, "%s/%s%d", base->path, TEMP, getpid())) {
        sweep_temps(base);
        remove_tree(directory);  // there, but its program is not: something has eaten at it
        made = unpack(payload, temp, directory) &&
               (!rename(temp, directory) || cannot("rename %s to %s", temp, directory)) && sync_directory(base->path) &&
               open_place(base, id, place);
        if (made) {
            debug("unpacked into %s", directory);
            sweep_old_ids(base, id);
        } else
            remove_tree(temp);
    }
    close(lock);
    return made;
}

static bool is_empty(const char *path) {
    DIR *directory = opendir(path);
    int entries = 0;
    while (directory && readdir(directory))
        entries++;
    if (directory)
        closedir(directory);
    return directory && entries == 2;
}

// A file system of our own in memory, on a host where root can write nowhere.
static bool make_place_on_own_tmpfs(const struct payload *payload, struct place *place) {
    mkdir(MOUNT_POINTS[0], 0755);
    for (int i = 0; MOUNT_POINTS[i]; i++) {
        struct base base = {.ours = true};
        struct stat info;
        char options[32];
        if (!is_empty(MOUNT_POINTS[i]) || stat(MOUNT_POINTS[i], &info))
            continue;
        snprintf(options, sizeof options, "mode=%o", info.st_mode & 07777);
        if (mount("appliance", MOUNT_POINTS[i], "tmpfs", MS_NOSUID | MS_NODEV, options))
            continue;
        note("nowhere to unpack to: mounted a tmpfs on %s", MOUNT_POINTS[i]);
        if (path_of(base.path, "%s%s", MOUNT_POINTS[i], i ? "/appliance-cache" : "") && make_place(&base, payload, place))
            return true;
        umount2(MOUNT_POINTS[i], MNT_DETACH);
    }
    return false;
}

bool place_find_or_make(const struct payload *payload, struct place *place) {
    list_bases();
    if (getenv("APPLIANCE_CACHE") && base_count &&
        (open_place(&bases[0], payload->text.payload_id, place) || make_place(&bases[0], payload, place)))
        return true;
    for (int i = 0; i < base_count; i++)
        if (open_place(&bases[i], payload->text.payload_id, place))
            return true;
    for (int i = 0; i < base_count; i++)
        if (bases[i].ours && make_place(&bases[i], payload, place))
            return true;
    char reason[1024];
    snprintf(reason, sizeof reason, "%s", why_not());
    if (geteuid() == 0 && make_place_on_own_tmpfs(payload, place))
        return true;
    errno = 0;
    return cannot("unpack anywhere; the last place tried said: cannot %s (APPLIANCE_CACHE=DIR names another)", reason);
}
