#include "fs/ops.h"

const struct fuse_lowlevel_ops *worker_ops(void)
{
    /* No access (default_permissions), no bmap, ioctl, poll: the kernel's own answers are right. */
    static const struct fuse_lowlevel_ops ops = {
        .init = worker_init_conn,
        .lookup = fs_lookup,
        .forget = fs_forget,
        .forget_multi = fs_forget_multi,
        .getattr = fs_getattr,
        .setattr = fs_setattr,
        .readlink = fs_readlink,
        .mknod = fs_mknod,
        .mkdir = fs_mkdir,
        .unlink = fs_unlink,
        .rmdir = fs_rmdir,
        .symlink = fs_symlink,
        .rename = fs_rename,
        .link = fs_link,
        .open = fs_open,
        .read = fs_read,
        .write = fs_write,
        .flush = fs_flush,
        .release = fs_release,
        .fsync = fs_fsync,
        .opendir = fs_opendir,
        .readdir = fs_readdir,
        .readdirplus = fs_readdirplus,
        .releasedir = fs_releasedir,
        .fsyncdir = fs_fsyncdir,
        .statfs = fs_statfs,
        .setxattr = fs_setxattr,
        .getxattr = fs_getxattr,
        .listxattr = fs_listxattr,
        .removexattr = fs_removexattr,
        .create = fs_create,
        .getlk = fs_getlk,
        .setlk = fs_setlk,
        .flock = fs_flock,
        .fallocate = fs_fallocate,
        .copy_file_range = fs_copy_file_range,
        .lseek = fs_lseek,
    };
    return &ops;
}
