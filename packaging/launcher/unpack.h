// Writing the payload's tree to the disk, so that it is whole and durable before anybody sees it.
#pragma once
#include "payload.h"

#include <limits.h>

// Makes the directory `temp`, fills it and syncs it; the programs in it expect to be run below `directory`.
bool unpack(const struct payload *payload, const char *temp, const char *directory);

void remove_tree(const char *path);
