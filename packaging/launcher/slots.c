#define _GNU_SOURCE
#include "slots.h"
#include "say.h"
#include "turn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const NAMES[2] = {"a", "b"};

// Only its owner can write it, and that is root or us: what lies in a stranger's directory is not started.
static bool is_trusted(const char *path, mode_t kind) {
    struct stat info;
    return !lstat(path, &info) && (info.st_mode & S_IFMT) == kind && !(info.st_mode & 022) &&
           (info.st_uid == 0 || info.st_uid == geteuid());
}

static bool slot_file(const struct slots *slots, int slot, char path[PATH_MAX]) {
    return path_of(path, "%s/%s/appliance", slots->directory, NAMES[slot]);
}

static bool slot_exists(const struct slots *slots, int slot) {
    char directory[PATH_MAX], file[PATH_MAX];
    return path_of(directory, "%s/%s", slots->directory, NAMES[slot]) && is_trusted(directory, S_IFDIR) &&
           slot_file(slots, slot, file) && is_trusted(file, S_IFREG) && !access(file, X_OK);
}

// Returns the copy that holds, or -1.
static int read_record(const struct slots *slots, int flags, char file[RECORD_SIZE], struct record *record, int *fd) {
    char path[PATH_MAX];
    memset(file, 0, RECORD_SIZE);
    if (!path_of(path, "%s/record", slots->directory) || !is_trusted(path, S_IFREG))
        return -1;
    *fd = open(path, flags | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0) {
        cannot("open %s", path);
        return -1;
    }
    if (pread(*fd, file, RECORD_SIZE, 0) < 0)
        cannot("read %s", path);  // zeros are no valid copy
    return record_newest(file, record);
}

// Both copies are corrupt: the link that the last bless left names the slot that was good.
static bool slot_of_link(const struct slots *slots, int *slot) {
    char path[PATH_MAX], target[8];
    ssize_t length = path_of(path, "%s/current", slots->directory) ? readlink(path, target, sizeof target) : -1;
    if (length != 1 || (target[0] != 'a' && target[0] != 'b'))
        return false;
    *slot = target[0] - 'a';
    return slots->exists[*slot];
}

bool slots_read(const char *root, struct slots *slots) {
    char bytes[RECORD_SIZE], path[PATH_MAX];
    int fd = -1, slot;
    const char *below = strcmp(root, "/") ? root : "";
    if (!path_of(slots->directory, "%s/var/lib/appliance/slots", below) ||
        !path_of(slots->lock_file, "%s/run/appliance/lock", below) || !path_of(path, "%s/record", slots->directory) ||
        access(path, F_OK))
        return false;
    if (!is_trusted(slots->directory, S_IFDIR) || !is_trusted(path, S_IFREG)) {
        note("slots not used: %s is not only its owner's, us or root, to write", slots->directory);
        return false;
    }
    for (slot = 0; slot < 2; slot++)
        slots->exists[slot] = slot_exists(slots, slot);
    slots->has_record = read_record(slots, O_RDONLY, bytes, &slots->record, &fd) >= 0;
    if (fd < 0)
        return false;  // not ours to read: run this very file
    close(fd);
    if (slots->has_record)
        return true;
    memset(&slots->record, 0, sizeof slots->record);
    bool linked = slot_of_link(slots, &slot);
    note("both copies of %s are corrupt: %s", path, linked ? "started the slot blessed last" : "started the file itself");
    if (linked)
        slots->record.slot[slot].blessed = true;
    return linked;
}

bool slots_hold(const struct slots *slots, int fd) {
    struct stat own, other;
    char path[PATH_MAX];
    for (int slot = 0; slot < 2; slot++)
        if (slot_file(slots, slot, path) && !fstat(fd, &own) && !stat(path, &other) && own.st_ino == other.st_ino &&
            own.st_dev == other.st_dev)
            return true;
    return false;
}

bool slots_daemon_runs(const struct slots *slots) {
    int fd = open(slots->lock_file, O_RDONLY | O_CLOEXEC);
    bool runs = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    return runs;
}

static bool write_copy(int fd, const char copy[RECORD_COPY], int which) {
    return pwrite(fd, copy, RECORD_COPY, which * RECORD_COPY) == RECORD_COPY && !fdatasync(fd);
}

// The older copy first: a power cut leaves one that is whole.
static bool spend(struct slots *slots, int slot) {
    char bytes[RECORD_SIZE], spent[RECORD_COPY];
    struct record record;
    int fd = -1;
    int newest = read_record(slots, O_RDWR, bytes, &record, &fd);
    errno = 0;
    bool done = newest >= 0 && record_spend(bytes + newest * RECORD_COPY, slot, spent);
    if (done && !(write_copy(fd, spent, 1 - newest) && write_copy(fd, spent, newest)))
        done = cannot("write %s/record", slots->directory);
    if (fd >= 0)
        close(fd);
    return done;
}

static void read_again(struct slots *slots) {
    char bytes[RECORD_SIZE];
    struct record record;
    int fd = -1;
    if (read_record(slots, O_RDONLY, bytes, &record, &fd) >= 0)
        slots->record = record;
    if (fd >= 0)
        close(fd);
}

struct choice slots_choose(struct slots *slots, bool for_run) {
    struct choice choice = {.slot = -1};
    const struct record *record = &slots->record;
    bool may_try = for_run && slots->has_record && !slots_daemon_runs(slots);
    int picked = record_pick(record, slots->exists, may_try);
    if (picked >= 0 && !record->slot[picked].blessed) {
        turn_take(slots);
        read_again(slots);  // while we waited another start may have spent a try, and it may live
        picked = record_pick(record, slots->exists, !slots_daemon_runs(slots));
    }
    if (picked >= 0 && !record->slot[picked].blessed) {
        choice.trial = spend(slots, picked);
        if (!choice.trial) {
            note("%s in slot %s is not tried: cannot %s", record->slot[picked].version, NAMES[picked], why_not());
            picked = record_pick(record, slots->exists, false);
        }
    }
    if (!choice.trial)
        turn_end();
    if (picked >= 0 && slot_file(slots, picked, choice.file))
        choice.slot = picked;
    return choice;
}
