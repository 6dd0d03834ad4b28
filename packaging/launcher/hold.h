/* hold: keeps file descriptors over the death of whoever opened them. See hold.c. */
#pragma once

_Noreturn void hold(void);
