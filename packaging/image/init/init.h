// The parts of the first program; main.c says what it does.
#pragma once
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define EFIVARS "/sys/firmware/efi/efivars/"
enum { BLOCK = 4096, WATCHDOG_FD = 9 };

struct disk {
    char esp[64], root[2][64], state[64];  // "vda1"
    char parent[64];
};

// words.c
extern char command_line[8192];
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void end(const char *what) __attribute__((noreturn));
const char *argument(const char *key, char *value, size_t size);
bool command_line_is_whole(void);
uint32_t crc32_of(const uint8_t *data, size_t size);
void read_file(const char *path, char *into, size_t size);
void write_file(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));

// modules.c
void load_modules(void);
void arm_watchdog(void);
void feed_watchdog(void);

// loader.c
bool loader_variable(const char *name, char *value, size_t size);
bool own_entry(char *name, size_t size);
bool failed_before(void);
bool kernel_image_is_whole(const struct disk *disk);
bool condemn(const struct disk *disk);

// disks.c
bool find_partitions(struct disk *disk, const char *esp_uuid);

// verity.c
bool open_verity(int mapper, const char *device, const char *hash, const char *blocks, const char *salt);
void close_verity(int mapper);
bool has_identity(const char *device, const char *blocks, const char *uuid);
bool read_through(const char *path);
