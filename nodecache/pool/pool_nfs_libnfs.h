/* libnfs' headers, which need each other in this order. */
#ifndef UMBEL_POOL_NFS_LIBNFS_H
#define UMBEL_POOL_NFS_LIBNFS_H

/* clang-format off */
#include <nfsc/libnfs.h>
#include <nfsc/libnfs-zdr.h>
#include <nfsc/libnfs-raw.h>
#include <nfsc/libnfs-raw-mount.h>
#include <nfsc/libnfs-raw-nfs.h>
/* clang-format on */

#endif
