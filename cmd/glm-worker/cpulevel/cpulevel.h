#pragma once
// What cpulevel.c offers to Go. See the package comment.
const char *cpu_level_built(void);
unsigned cpu_level_present(void);
const char *cpu_level_missing(unsigned have);
