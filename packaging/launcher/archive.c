#define _GNU_SOURCE
#include "archive.h"

#include <string.h>

static const char MAGIC[16] = "APPLIANCE-PACK-1";

bool footer_check(const struct footer *footer, uint64_t file_size, struct footer_text *text) {
    if (memcmp(footer->magic, MAGIC, sizeof MAGIC))
        return false;
    if (file_size < sizeof *footer || footer->offset > file_size - sizeof *footer)
        return false;
    if (footer->packed != file_size - sizeof *footer - footer->offset)
        return false;
    for (size_t i = 0; i < sizeof footer->payload_id; i++)
        if (!footer->payload_id[i] || !strchr("0123456789abcdef", footer->payload_id[i]))
            return false;
    memcpy(text->payload_id, footer->payload_id, sizeof footer->payload_id);
    text->payload_id[sizeof footer->payload_id] = 0;
    memcpy(text->version, footer->version, sizeof footer->version);
    text->version[sizeof footer->version] = 0;
    return true;
}

static bool stays_below(const char *path) {
    while (true) {
        size_t length = strcspn(path, "/");
        if (length == 0 || (length == 1 && path[0] == '.') || (length == 2 && path[0] == '.' && path[1] == '.'))
            return false;
        if (!path[length])
            return true;
        path += length + 1;
    }
}

bool archive_next(struct source *source, struct entry *entry) {
    struct entry_header header;
    if (!source->read(source, &header, sizeof header))
        return false;
    if (header.zero || header.flags & ~(FLAG_EXECUTABLE | FLAG_RELOCATE) || header.path_length > ARCHIVE_PATH_MAX)
        return false;
    entry->kind = header.kind;
    entry->executable = header.flags & FLAG_EXECUTABLE;
    entry->relocate = header.flags & FLAG_RELOCATE;
    entry->size = header.size;
    if (!source->read(source, entry->path, header.path_length))
        return false;
    entry->path[header.path_length] = 0;
    switch (header.kind) {
    case KIND_END:
        return header.path_length == 0 && header.size == 0 && header.flags == 0;
    case KIND_DIRECTORY:
        return strlen(entry->path) == header.path_length && stays_below(entry->path) && header.size == 0;
    case KIND_FILE:
        return strlen(entry->path) == header.path_length && stays_below(entry->path);
    default:
        return false;
    }
}
