// libFuzzer: whatever stands in an archive or a footer, reading it stays in bounds, and no path leaves the directory.
#include "archive.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
    struct source source;
    const uint8_t *at;
    size_t left;
};

static bool read_bytes(struct source *source, void *buffer, size_t length) {
    struct bytes *bytes = (struct bytes *)source;
    if (length > bytes->left)
        return false;
    memcpy(buffer, bytes->at, length);
    bytes->at += length;
    bytes->left -= length;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct footer footer = {0};
    struct footer_text text;
    memcpy(&footer, data, size < sizeof footer ? size : sizeof footer);
    if (footer_check(&footer, size, &text))
        assert(footer.offset + footer.packed + sizeof footer == size && strlen(text.payload_id) == 64);

    struct bytes bytes = {{read_bytes}, data, size};
    struct entry *entry = malloc(sizeof *entry);
    while (archive_next(&bytes.source, entry) && entry->kind != KIND_END) {
        assert(entry->path[0] && entry->path[0] != '/');
        assert(!strstr(entry->path, "/../") && strncmp(entry->path, "../", 3) && strcmp(entry->path, ".."));
        if (entry->size > bytes.left)
            break;
        bytes.at += entry->size;
        bytes.left -= entry->size;
    }
    free(entry);
    return 0;
}
