// Whose turn it is to start a version on trial: from the pick until the daemon has its own lock, one launcher at a time.
//
// An init and a guard may both start us when a trial has died. Each would spend a try, and only one of them can live. So
// the lock is taken before the record is read for the try, and goes over both execs to the program, which lets go of it
// when it has the daemon's lock. It is an flock: it ends with its holder, however that ends.
#pragma once
#include "slots.h"

// Waits for it, as long as a trial may take. False when it could not be had: then we go on without.
bool turn_take(const struct slots *slots);

// The program that we become keeps it.
void turn_pass_on(void);

// In the guard, and where nothing is tried after all.
void turn_end(void);

// Whether another launcher has it.
bool turn_is_taken(const struct slots *slots);
