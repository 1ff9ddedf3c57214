/* hog: computes for ever. Every 5 s of its time a line that says how much. */
#include <stdio.h>
#include <time.h>

int main(void)
{
    volatile unsigned x = 1;
    time_t last = time(NULL);

    for (unsigned long loops = 0;;) {
        for (int i = 0; i < 100000; i++)
            x = x * 1664525u + 1013904223u;
        loops++;
        if (time(NULL) - last >= 5) {
            last = time(NULL);
            printf("HOG loops=%lu\n", loops);
            fflush(stdout);
        }
    }
}
