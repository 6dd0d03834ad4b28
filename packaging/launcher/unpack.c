#define _GNU_SOURCE
#include "unpack.h"
#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// A program names its dynamic loader (PT_INTERP) and where its libraries are (DT_RPATH) by absolute paths, and in an empty
// root nothing else can be counted on. packaging/pack.py leaves room for both, filled with these names and '@'.
static const char INTERPRETER[] = "/@@INTERPRETER@@", LIBRARIES[] = "/@@LIBRARIES@@";

static bool write_all(int fd, const char *bytes, size_t length) {
    while (length) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        bytes += written;
        length -= written;
    }
    return true;
}

// Puts `value` in the place of the room that starts with `name`, and zeros behind it.
static bool fill(char *bytes, size_t size, const char *name, const char *value) {
    char *room = memmem(bytes, size, name, strlen(name));
    errno = 0;
    if (!room)
        return cannot("relocate a program: it has no room named %s", name);
    size_t name_length = strlen(name), length = name_length;
    while (room + length < bytes + size && room[length] == '@')
        length++;
    if (strlen(value) >= length)
        return cannot("relocate a program: %s is longer than %zu bytes", value, length - 1);
    memset(room, 0, length);
    memcpy(room, value, strlen(value));
    return true;
}

static bool relocate(int fd, size_t size, const char *directory) {
    char interpreter[PATH_MAX], libraries[PATH_MAX];
    if (!path_of(interpreter, "%s/lib/ld.so", directory) ||
        !path_of(libraries, "%s/lib:%s/_internal", directory, directory))
        return false;
    char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED)
        return cannot("relocate a program");
    bool done = fill(bytes, size, INTERPRETER, interpreter) && fill(bytes, size, LIBRARIES, libraries);
    munmap(bytes, size);
    return done;
}

static bool unpack_file(struct source *source, const struct entry *entry, int root, const char *directory, char *buffer) {
    int fd = openat(root, entry->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, entry->executable ? 0755 : 0644);
    if (fd < 0)
        return cannot("write %s", entry->path);
    bool done = true;
    for (uint64_t left = entry->size; done && left;) {
        size_t length = left < UNPACKED_CHUNK ? left : UNPACKED_CHUNK;
        done = source->read(source, buffer, length);
        if (done && !write_all(fd, buffer, length))
            done = cannot("write %s", entry->path);
        left -= length;
    }
    if (done && entry->relocate)
        done = relocate(fd, entry->size, directory);
    close(fd);
    return done;
}

static bool unpack_entries(struct source *source, int root, const char *directory) {
    char *buffer = malloc(UNPACKED_CHUNK);
    struct entry entry;
    bool done = buffer != NULL;
    while (done) {
        errno = 0;
        if (!archive_next(source, &entry))
            done = cannot("unpack: the archive is damaged");
        else if (entry.kind == KIND_END)
            break;
        else if (entry.kind == KIND_DIRECTORY)
            done = !mkdirat(root, entry.path, 0755) || cannot("make directory %s", entry.path);
        else
            done = unpack_file(source, &entry, root, directory, buffer);
    }
    free(buffer);
    return done;
}

static int sync_one(const char *path, const struct stat *info, int kind, struct FTW *where) {
    (void)info, (void)kind, (void)where;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int failed = fd < 0 || fsync(fd);
    if (fd >= 0)
        close(fd);
    return failed;
}

bool unpack(const struct payload *payload, const char *temp, const char *directory) {
    mode_t mask = umask(022);
    bool done = !mkdir(temp, 0755) || cannot("make directory %s", temp);
    int root = done ? open(temp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    struct payload_source *from = done ? payload_open(payload) : NULL;
    if (from) {
        done = unpack_entries(&from->source, root, directory);
        done = payload_close(from) && done;
    } else
        done = false;
    if (root >= 0)
        close(root);
    umask(mask);
    // All is written before the first fsync waits, so that the disk takes it in one go.
    if (done && nftw(temp, sync_one, 16, FTW_DEPTH | FTW_PHYS))
        done = cannot("sync %s", temp);
    return done;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where) {
    (void)info, (void)kind, (void)where;
    remove(path);
    return 0;
}

void remove_tree(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }
