/*
 * godown DIR: shuts the filesystem that holds DIR down without flushing its log, as a loss of power
 * would: what was not synced is gone. The filesystem must be unmounted and mounted again
 * afterwards. ext4, xfs, f2fs.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define FS_IOC_GOING_DOWN _IOR('X', 125, uint32_t)
#define NO_LOG_FLUSH      2u

int main(int argc, char **argv)
{
    uint32_t how = NO_LOG_FLUSH;

    if (argc != 2)
        errx(2, "usage: godown DIR");
    int fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, FS_IOC_GOING_DOWN, &how) != 0)
        err(1, "%s", argv[1]);
    return 0;
}
