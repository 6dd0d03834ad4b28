// dm-verity: ioctls of the device mapper, no library, no udev.
#define _GNU_SOURCE
#include "init.h"
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 20 };

static char mapper_buffer[16384] __attribute__((aligned(8)));

static struct dm_ioctl *mapper_request(uint32_t flags) {
    struct dm_ioctl *request = (void *)mapper_buffer;
    memset(mapper_buffer, 0, sizeof mapper_buffer);
    request->version[0] = 4;
    request->data_size = sizeof mapper_buffer;
    request->data_start = sizeof *request;
    request->flags = flags;
    strcpy(request->name, "root");
    return request;
}

bool open_verity(int mapper, const char *device, const char *hash, const char *blocks, const char *salt) {
    struct dm_ioctl *request = mapper_request(DM_READONLY_FLAG);
    if (ioctl(mapper, DM_DEV_CREATE, request))
        return false;
    request = mapper_request(DM_READONLY_FLAG);
    request->target_count = 1;
    struct dm_target_spec *target = (void *)(mapper_buffer + sizeof *request);
    char *parameters = (char *)(target + 1);
    unsigned long long count = strtoull(blocks, NULL, 10);
    target->length = count * (BLOCK / 512);
    strcpy(target->target_type, "verity");
    int length = sprintf(parameters, "1 /dev/%s /dev/%s %d %d %llu %llu sha256 %s %s", device, device, BLOCK, BLOCK, count,
                         count + 1, hash, salt);
    target->next = (sizeof *target + length + 8) & ~7u;
    if (ioctl(mapper, DM_TABLE_LOAD, request) || ioctl(mapper, DM_DEV_SUSPEND, mapper_request(0)))
        return false;
    request = mapper_request(0);
    if (ioctl(mapper, DM_DEV_STATUS, request))
        return false;
    mkdir("/dev/mapper", 0755);
    unlink("/dev/mapper/root");
    return !mknod("/dev/mapper/root", S_IFBLK | 0600, request->dev);
}

void close_verity(int mapper) {
    unlink("/dev/mapper/root");
    ioctl(mapper, DM_DEV_REMOVE, mapper_request(0));
}

// The tree's own header names the release it belongs to: a slot that holds another one is passed over without noise.
bool has_identity(const char *device, const char *blocks, const char *uuid) {
    char path[100];
    uint8_t header[32];
    char text[40];
    snprintf(path, sizeof path, "/dev/%s", device);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t at = strtoull(blocks, NULL, 10) * BLOCK;
    bool read_it = fd >= 0 && pread(fd, header, sizeof header, at) == sizeof header;
    if (fd >= 0)
        close(fd);
    for (int i = 0, out = 0; read_it && i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            text[out++] = '-';
        out += sprintf(text + out, "%02x", header[16 + i]);
    }
    return read_it && !strcasecmp(text, uuid);
}

bool read_through(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    char *buffer = aligned_alloc(BLOCK, READ_BYTES);
    ssize_t length = fd < 0 || !buffer ? -1 : 1;
    while (length > 0)
        length = read(fd, buffer, READ_BYTES);
    free(buffer);
    if (fd >= 0)
        close(fd);
    return length == 0;
}
