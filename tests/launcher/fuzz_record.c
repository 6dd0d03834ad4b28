// libFuzzer: whatever stands in a slot record, reading it stays in bounds, and what is spent from it can be read again.
#include "record.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *file = malloc(RECORD_SIZE), *out = malloc(RECORD_COPY);  // on the heap: the sanitizer watches both ends
    memset(file, '\n', RECORD_SIZE);
    memcpy(file, data, size < RECORD_SIZE ? size : RECORD_SIZE);
    struct record record, after;
    int newest = record_newest(file, &record);
    for (int slot = 0; newest >= 0 && slot < 2; slot++) {
        const bool exists[2] = {true, true};
        assert(record_pick(&record, exists, true) >= -1);
        if (record_spend(file + newest * RECORD_COPY, slot, out)) {
            assert(record_parse(out, &after));
            assert(after.slot[slot].tries == record.slot[slot].tries - 1);
        }
    }
    free(file);
    free(out);
    return 0;
}

