// Lets Criterion run under ThreadSanitizer.
//
// Criterion's sandbox maps an arena at one fixed address in all of a test's processes. It draws
// that address by rand_r, mostly from where ThreadSanitizer keeps its shadow memory, and the test
// dies. This rand_r, which the linker puts before libc's, draws addresses from 0x566000000000 to
// 0x566fff000000: application memory to ThreadSanitizer, and above where Linux puts programs.
#include <stdlib.h>

enum {
    FIRST = (0x566000000000 - 0x200000000000) >>
            24, // the sandbox adds 0x200000000000, counts in 16 MiB
    COUNT = 0x1000,
};

int rand_r(unsigned int *seed)
{
    *seed = *seed * 1103515245U + 12345U;
    return FIRST + (int)(*seed >> 16) % COUNT;
}
