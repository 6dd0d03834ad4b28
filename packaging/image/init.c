// The first program of our own image: /init of the initramfs, static, no shell beside it.
//
//     1. Mount proc, sys and dev; load the modules listed in /modules/order; arm the watchdog.
//     2. Find the disk we were booted from, and on it the slot whose dm-verity tree has the root hash of our command line
//        (which is part of the signed kernel image). When an earlier try of this entry came to nothing, read the slot
//        from end to end: what has rotted on the disk is found now (appliance.verify=always does so at each start).
//     3. Mount it read-only, move there, become /usr/bin/appliance run.
//
// When no slot fits, our own boot entry is condemned: it is renamed to have no tries left, so that systemd-boot takes the
// other one. A kernel that dies counts as a spent try (systemd.io/AUTOMATIC_BOOT_ASSESSMENT).
//
// Command line: roothash=HEX appliance.verity=BLOCKS:SALT:UUID appliance.watchdog=SECONDS appliance.version=TEXT
//               appliance.sum=CRC-32 of all that stands before it: a bit that rots on the ESP may have turned a word of
//               it into another one that is valid, and nothing but Secure Boot looks at it before us.
#define _GNU_SOURCE
#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/watchdog.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define LOADER "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"  // systemd-boot's variables (UAPI boot loader interface)
#define EFIVARS "/sys/firmware/efi/efivars/"
enum { BLOCK = 4096, WAIT_TENTHS = 300, READ_BYTES = 1 << 20, WATCHDOG_FD = 9 };

static char command_line[8192];

static void say(const char *format, ...) {
    char text[512] = "<5>appliance: ";
    size_t start = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + start, sizeof text - start - 1, format, arguments);
    va_end(arguments);
    strcat(text, "\n");
    int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, text, strlen(text)) < 0)
            dprintf(2, "%s", text);
        close(fd);
    }
    dprintf(2, "%s", text + 3);
}

static void end(const char *what) {
    say("cannot start: %s; %s", what, strerror(errno));
    sync();
    sleep(1);
    exit(1);  // the end of the first process is a panic, and panic=-1 restarts: the try is spent
}

// The value of `key=` on the kernel's command line; empty when it is not there.
static const char *argument(const char *key, char *value, size_t size) {
    size_t length = strlen(key);
    *value = 0;
    for (const char *at = command_line; *at;) {
        size_t word = strcspn(at, " \n");
        if (!strncmp(at, key, length) && at[length] == '=' && word - length - 1 < size) {
            memcpy(value, at + length + 1, word - length - 1);
            value[word - length - 1] = 0;
        }
        at += word;
        at += strspn(at, " \n");
    }
    return value;
}

static bool command_line_is_whole(void) {
    static const char KEY[] = " appliance.sum=";
    const char *end = strstr(command_line, KEY);
    uint32_t sum = ~0u;
    for (const char *at = command_line; end && at < end; at++) {
        sum ^= (uint8_t)*at;
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0xEDB88320u : 0);
    }
    return end && strtoul(end + strlen(KEY), NULL, 16) == (uint32_t)~sum;
}

static void read_file(const char *path, char *into, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, into, size - 1);
    into[length < 0 ? 0 : length] = 0;
    if (fd >= 0)
        close(fd);
}

static void write_file(const char *path, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || vdprintf(fd, format, arguments) < 0)
        say("cannot write %s: %s", path, strerror(errno));
    va_end(arguments);
    close(fd);
}

// -- modules and watchdog ---------------------------------------------------------------------------------------------

// QEMU without KVM. There a vector instruction is a call, and hashing by them takes many times what plain code does.
static bool is_emulated(void) {
    unsigned highest, name[3];
    __cpuid(0x40000000, highest, name[0], name[1], name[2]);
    return !memcmp(name, "TCGTCGTCGTCG", sizeof name);
}

static void load_modules(void) {
    char order[8192], path[300];
    bool emulated = is_emulated();
    read_file("/modules/order", order, sizeof order);
    for (char *name = strtok(order, "\n"); name; name = strtok(NULL, "\n")) {
        snprintf(path, sizeof path, "/modules/%s", name);
        if (emulated && strstr(name, "sha256")) {
            unlink(path);
            continue;
        }
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST && errno != ENODEV && errno != ENOENT))
            say("cannot load %s: %s", name, strerror(errno));
        close(fd);
        unlink(path);
    }
}

// Armed before anything can hang; whoever comes next keeps the descriptor and feeds it.
static void arm_watchdog(void) {
    char value[32];
    int seconds = atoi(argument("appliance.watchdog", value, sizeof value));
    int fd = seconds > 0 ? open("/dev/watchdog", O_WRONLY) : -1;
    if (fd < 0) {
        if (seconds > 0)
            say("no watchdog on this machine");
        return;
    }
    if (ioctl(fd, WDIOC_SETTIMEOUT, &seconds))
        say("the watchdog keeps its own time: %s", strerror(errno));
    if (fd != WATCHDOG_FD) {
        dup2(fd, WATCHDOG_FD);
        close(fd);
    }
    setenv("APPLIANCE_WATCHDOG_FD", "9", 1);
}

// -- what systemd-boot tells -------------------------------------------------------------------------------------------

// A variable's UTF-16 as ASCII; the first four bytes are its attributes.
static bool loader_variable(const char *name, char *value, size_t size) {
    char path[200];
    uint8_t bytes[1024];
    snprintf(path, sizeof path, EFIVARS "%s" LOADER, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    if (fd >= 0)
        close(fd);
    size_t out = 0;
    for (ssize_t at = 4; at + 1 < length && out + 1 < size && (bytes[at] || bytes[at + 1]); at += 2)
        value[out++] = bytes[at + 1] ? '?' : bytes[at] == '\\' ? '/' : bytes[at];
    value[out] = 0;
    return out > 0;
}

// "appliance_2.0.0+1-2.efi": two starts were counted, this one among them, since one of them was well.
static bool failed_before(void) {
    char entry[256];
    if (!loader_variable("LoaderBootCountPath", entry, sizeof entry))
        return false;
    const char *count = strrchr(entry, '+');
    const char *done = count ? strchr(count, '-') : NULL;
    return done && atoi(done + 1) > 1;
}

// -- disks -------------------------------------------------------------------------------------------------------------

struct disk {
    char esp[64], root[2][64], state[64];  // "vda1"
    char parent[64];
};

static void uevent_value(const char *uevent, const char *key, char *value, size_t size) {
    const char *at = strstr(uevent, key);
    size_t length = at ? strcspn(at + strlen(key), "\n") : 0;
    snprintf(value, size, "%.*s", (int)length, at ? at + strlen(key) : "");
}

// The partition's own UUID, which the ESP's firmware variable names: the kernel tells it in uevent.
static bool is_ours(const char *uevent, const char *wanted) {
    char own[64];
    uevent_value(uevent, "PARTUUID=", own, sizeof own);
    return !*wanted || !*own || !strcasecmp(own, wanted);
}

static void parent_of(const char *name, char *parent, size_t size) {
    char link[PATH_MAX], path[300];
    snprintf(path, sizeof path, "/sys/class/block/%s", name);
    ssize_t length = readlink(path, link, sizeof link - 1);
    link[length < 0 ? 0 : length] = 0;
    char *slash = strrchr(link, '/');
    if (slash)
        *slash = 0;
    slash = strrchr(link, '/');
    snprintf(parent, size, "%s", slash ? slash + 1 : "");
}

// Fills in the partitions of the disk whose ESP we were started from; true once both slots are seen.
static bool find_partitions(struct disk *disk, const char *esp_uuid) {
    char path[300], uevent[2048], name[64], label[64], parent[64];
    memset(disk, 0, sizeof *disk);
    for (int pass = 0; pass < 2; pass++) {  // first the ESP, then what lies beside it
        DIR *directory = opendir("/sys/class/block");
        for (struct dirent *entry; directory && (entry = readdir(directory));) {
            snprintf(path, sizeof path, "/sys/class/block/%s/uevent", entry->d_name);
            read_file(path, uevent, sizeof uevent);
            uevent_value(uevent, "PARTNAME=", label, sizeof label);
            uevent_value(uevent, "DEVNAME=", name, sizeof name);
            parent_of(entry->d_name, parent, sizeof parent);
            if (pass == 0 && !strcmp(label, "esp") && is_ours(uevent, esp_uuid)) {
                strcpy(disk->esp, name);
                strcpy(disk->parent, parent);
            }
            if (pass == 0 || strcmp(parent, disk->parent))
                continue;
            if (!strcmp(label, "root-a"))
                strcpy(disk->root[0], name);
            if (!strcmp(label, "root-b"))
                strcpy(disk->root[1], name);
            if (!strcmp(label, "state"))
                strcpy(disk->state, name);
        }
        if (directory)
            closedir(directory);
    }
    return *disk->root[0] && *disk->root[1];
}

// -- dm-verity: ioctls of the device mapper, no library, no udev -------------------------------------------------------

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

static bool open_verity(int mapper, const char *device, const char *hash, const char *blocks, const char *salt, dev_t *made) {
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
    *made = request->dev;
    mkdir("/dev/mapper", 0755);
    unlink("/dev/mapper/root");
    return !mknod("/dev/mapper/root", S_IFBLK | 0600, *made);
}

static void close_verity(int mapper) {
    unlink("/dev/mapper/root");
    ioctl(mapper, DM_DEV_REMOVE, mapper_request(0));
}

// The tree's own header names the release it belongs to: a slot that holds another one is passed over without noise.
static bool has_identity(const char *device, const char *blocks, const char *uuid) {
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

static bool read_through(const char *path) {
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

// -- when nothing fits -------------------------------------------------------------------------------------------------

static void condemn(const struct disk *disk) {
    char entry[256], device[100], from[400], to[420];
    if (!loader_variable("LoaderBootCountPath", entry, sizeof entry) &&
        !loader_variable("LoaderEntrySelected", entry, sizeof entry)) {
        say("no boot loader names our entry: it stays as it is");
        return;
    }
    const char *name = strrchr(entry, '/') ? strrchr(entry, '/') + 1 : entry;
    snprintf(device, sizeof device, "/dev/%s", disk->esp);
    snprintf(from, sizeof from, "/mnt/EFI/Linux/%s", name);
    size_t stem = strcspn(name, "+");
    if (stem == strlen(name) && stem > 4)
        stem -= 4;
    snprintf(to, sizeof to, "/mnt/EFI/Linux/%.*s+0-1.efi", (int)stem, name);
    mkdir("/mnt", 0755);
    if (mount(device, "/mnt", "vfat", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_DIRSYNC, "umask=077") || (strcmp(from, to) && rename(from, to))) {
        say("cannot condemn %s: %s", from, strerror(errno));
        return;
    }
    umount("/mnt");
    sync();
    say("condemned %s: no slot holds what it was made for", name);
}

// -- moving in ---------------------------------------------------------------------------------------------------------

static void remove_all(int directory_fd, dev_t device) {
    DIR *directory = fdopendir(directory_fd);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        struct stat info;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
            fstatat(directory_fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) || info.st_dev != device)
            continue;
        if (S_ISDIR(info.st_mode)) {
            int inner = openat(directory_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (inner >= 0)
                remove_all(inner, device);
            unlinkat(directory_fd, entry->d_name, AT_REMOVEDIR);
        } else
            unlinkat(directory_fd, entry->d_name, 0);
    }
    if (directory)
        closedir(directory);
}

static void move_in(void) {
    static const char *const MOUNTS[] = {"proc", "sys", "dev", "run", NULL};
    struct stat old;
    int initramfs = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (stat("/", &old))
        end("stat /");
    for (int i = 0; MOUNTS[i]; i++) {
        char from[32], to[32];
        snprintf(from, sizeof from, "/%s", MOUNTS[i]);
        snprintf(to, sizeof to, "/sysroot/%s", MOUNTS[i]);
        if (mount(from, to, NULL, MS_MOVE, NULL))
            end(to);
    }
    if (chdir("/sysroot") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        end("move to the new root");
    remove_all(initramfs, old.st_dev);  // it is memory
    setenv("PATH", "/usr/sbin:/usr/bin", 1);
    char *const arguments[] = {"appliance", "run", NULL};
    execv("/usr/bin/appliance", arguments);
    end("start /usr/bin/appliance");
}

static double uptime(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

int main(void) {
    char hash[200], verity[300], esp_uuid[64], version[100], entry[256];
    struct disk disk;
    dev_t device = 0;
    mkdir("/proc", 0555), mkdir("/sys", 0555), mkdir("/dev", 0755), mkdir("/run", 0755), mkdir("/sysroot", 0755);
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount("sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755");
    mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
    read_file("/proc/cmdline", command_line, sizeof command_line);
    double started = uptime();
    load_modules();
    arm_watchdog();
    mount("efivarfs", EFIVARS, "efivarfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    if (!strcmp(argument("appliance.test", version, sizeof version), "hang"))
        pause();  // of a kernel image that was made for it: its command line is signed with it
    if (!loader_variable("LoaderDevicePartUUID", esp_uuid, sizeof esp_uuid))
        *esp_uuid = 0;
    argument("roothash", hash, sizeof hash);
    argument("appliance.verity", verity, sizeof verity);
    argument("appliance.version", version, sizeof version);
    char *blocks = strtok(verity, ":"), *salt = strtok(NULL, ":"), *uuid = strtok(NULL, ":");
    if (!*hash || !blocks || !salt || !uuid)
        end("the command line names no root");
    for (int tenth = 0; !find_partitions(&disk, esp_uuid) && tenth < WAIT_TENTHS; tenth++)
        usleep(100000);
    if (!*disk.root[0] || !*disk.root[1])
        end("there is no disk with root-a and root-b");
    int mapper = open("/dev/mapper/control", O_RDWR | O_CLOEXEC), slot = -1;
    char verify[16];
    bool thorough = failed_before() || !strcmp(argument("appliance.verify", verify, sizeof verify), "always");
    double looked = uptime();
    bool whole = command_line_is_whole();
    if (!whole)
        say("the command line is not what was built");
    for (int i = 0; i < 2 && slot < 0 && whole; i++) {
        if (!has_identity(disk.root[i], blocks, uuid))
            continue;
        if (!open_verity(mapper, disk.root[i], hash, blocks, salt, &device))
            say("slot %c: its tree is refused: %s", 'a' + i, strerror(errno));
        else if (thorough && !read_through("/dev/mapper/root"))
            say("slot %c: it does not hold what was signed: %s", 'a' + i, strerror(errno));
        else if (mount("/dev/mapper/root", "/sysroot", "erofs", MS_RDONLY | MS_NOSUID | MS_NODEV, NULL))
            say("slot %c: cannot mount it: %s", 'a' + i, strerror(errno));
        else
            slot = i;
        if (slot < 0)
            close_verity(mapper);
    }
    if (slot < 0) {
        condemn(&disk);
        sync();
        sleep(1);
        reboot(RB_AUTOBOOT);
        end("no slot holds what this kernel was signed for");
    }
    if (!loader_variable("LoaderBootCountPath", entry, sizeof entry) && !loader_variable("LoaderEntrySelected", entry, sizeof entry))
        *entry = 0;
    mkdir("/run/appliance", 0755);
    write_file("/run/appliance/boot",
               "version=%s\nslot=%c\nroothash=%s\ndisk=%s\nesp=%s\nroot_a=%s\nroot_b=%s\nstate=%s\nentry=%s\n"
               "seconds_kernel=%.3f\nseconds_drivers=%.3f\nseconds_verity=%.3f\n",
               version, 'a' + slot, hash, disk.parent, disk.esp, disk.root[0], disk.root[1], disk.state,
               strrchr(entry, '/') ? strrchr(entry, '/') + 1 : entry, started, looked, uptime());
    say("version %s, slot %c%s", version, 'a' + slot, thorough ? ", read to its end" : "");
    if (mapper >= 0)
        close(mapper);
    move_in();
}
