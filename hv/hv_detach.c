#include "hv/hv_detach.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

int hv_detach(void (*become)(const void *arg), const void *arg)
{
    pid_t child = fork();
    int status;

    if (child < 0)
        return -errno;
    if (child == 0) {
        setsid();
        pid_t grandchild = fork();
        if (grandchild == 0)
            become(arg);
        _exit(grandchild < 0);
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EAGAIN;
}
