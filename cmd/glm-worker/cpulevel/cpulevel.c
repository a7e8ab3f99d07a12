// Everything in this file must run on any x86-64: no function here may be compiled with the level of the build.
#include "cpulevel.h"
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#define PLAIN __attribute__((target("arch=x86-64")))
#else
#define PLAIN
#endif

#if defined(__x86_64__) && defined(__AVX2__)
#define LEVEL "x86-64-v3"
// The order gives each feature its bit. Only what the compiler may use at this level.
#define FEATURES 6
PLAIN static const char *feature_name(int bit) {
    switch (bit) {
    case 0: return "avx";
    case 1: return "avx2";
    case 2: return "fma";
    case 3: return "bmi";
    case 4: return "bmi2";
    default: return "f16c";
    }
}
PLAIN unsigned cpu_level_present(void) {
    unsigned have = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx")) have |= 1u << 0;
    if (__builtin_cpu_supports("avx2")) have |= 1u << 1;
    if (__builtin_cpu_supports("fma")) have |= 1u << 2;
    if (__builtin_cpu_supports("bmi")) have |= 1u << 3;
    if (__builtin_cpu_supports("bmi2")) have |= 1u << 4;
    if (__builtin_cpu_supports("f16c")) have |= 1u << 5;
    return have;
}
#else
#if defined(__x86_64__)
#define LEVEL "x86-64"
#else
#define LEVEL "native"
#endif
#define FEATURES 0
static const char *feature_name(int bit) { (void)bit; return ""; }
unsigned cpu_level_present(void) { return 0; }
#endif

PLAIN const char *cpu_level_built(void) { return LEVEL; }

PLAIN const char *cpu_level_missing(unsigned have) {
    for (int bit = 0; bit < FEATURES; bit++) {
        if (!(have & (1u << bit))) return feature_name(bit);
    }
    return "";
}

PLAIN static void say(const char *text) {
    if (write(2, text, strlen(text)) < 0) _exit(1);
}

// 101 is the first priority open to programs: before every C++ constructor.
__attribute__((constructor(101))) PLAIN static void require_cpu_level(void) {
    const char *lacks = cpu_level_missing(cpu_level_present());
    if (!lacks[0]) return;
    say("glm-worker: this binary is built for " LEVEL " and this processor lacks ");
    say(lacks);
    say(": use the build for plain x86-64 (make release makes bin/glm-worker-v1), or build with GLM_MARCH=x86-64\n");
    _exit(1);
}
