/*
 * Any bytes as a stream of frames, in pieces: headers, the inbox and the bodies of all message
 * types must neither crash nor give more than was sent. The first byte says which type a body is
 * unpacked as, besides those that its bytes suit by chance; every other run makes the first header
 * valid, so that what is behind it is reached.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/wire/stream.h"

static const ProtobufCMessageDescriptor *const types[] = {
    &star__hello__descriptor,          &star__hello_reply__descriptor,
    &star__renew__descriptor,          &star__renew_reply__descriptor,
    &star__reclaim__descriptor,        &star__lookup__descriptor,
    &star__attr_reply__descriptor,     &star__entry_reply__descriptor,
    &star__set_attr__descriptor,       &star__target__descriptor,
    &star__make__descriptor,           &star__link__descriptor,
    &star__remove__descriptor,         &star__remove_reply__descriptor,
    &star__rename__descriptor,         &star__rename_reply__descriptor,
    &star__open__descriptor,           &star__open_reply__descriptor,
    &star__release__descriptor,        &star__read_dir__descriptor,
    &star__read_dir_reply__descriptor, &star__xattr__descriptor,
    &star__xattr_reply__descriptor,    &star__statfs_reply__descriptor,
    &star__lock__descriptor,           &star__lock_reply__descriptor,
    &star__cancel_lock__descriptor,    &star__return_leases__descriptor,
    &star__invalidate__descriptor,     &star__recall__descriptor,
    &star__ctl_lookup__descriptor,     &star__ctl_write__descriptor,
    &star__ctl_reply__descriptor,      &star__home_attrs__descriptor,
    &star__node_attrs__descriptor,     &star__home_set_attr__descriptor,
    &star__node_report__descriptor,    &star__node_report_reply__descriptor,
    &star__map_request__descriptor,    &star__map_reply__descriptor,
    &star__alloc_packs__descriptor,    &star__alloc_packs_reply__descriptor,
    &star__pack_ref__descriptor,       &star__pack_refs__descriptor,
    &star__confirm__descriptor,        &star__confirm_reply__descriptor,
    &star__copies__descriptor,         &star__drop__descriptor,
    &star__flush_request__descriptor,  &star__flush_reply__descriptor,
    &star__read__descriptor,           &star__read_reply__descriptor,
    &star__write__descriptor,          &star__write_reply__descriptor,
    &star__fsync__descriptor,          &star__fallocate__descriptor,
    &star__seek__descriptor,           &star__seek_reply__descriptor,
    &star__copy_range__descriptor,     &star__error_reply__descriptor,
    &star__empty__descriptor,          &star__inode__descriptor,
    &star__log_entry__descriptor,      &star__log_session__descriptor,
    &star__log_home__descriptor,       &star__log_node__descriptor,
    &star__log_setting__descriptor,    &star__log_inodes__descriptor,
    &star__result__descriptor,
};

enum { TYPES = sizeof(types) / sizeof(types[0]) };

static volatile uint8_t sink;

/* Reads every byte, so that a sanitizer sees one that is not ours. */
static void touch(const uint8_t *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sink ^= at[i];
}

/* What was unpacked must pack, and unpack to as much again. */
static void use_body(const struct message *m, const ProtobufCMessageDescriptor *type)
{
    ProtobufCMessage *body = frame_unpack(m, type);
    if (!body)
        return;
    size_t size = protobuf_c_message_get_packed_size(body);
    uint8_t *bytes = malloc(size + 1);
    if (bytes && protobuf_c_message_pack(body, bytes) != size)
        abort();
    struct message again = {.body = bytes, .body_len = size};
    ProtobufCMessage *twin = bytes ? frame_unpack(&again, type) : NULL;
    if (twin && protobuf_c_message_get_packed_size(twin) != size)
        abort();
    if (twin)
        protobuf_c_message_free_unpacked(twin, NULL);
    free(bytes);
    protobuf_c_message_free_unpacked(body, NULL);
}

static void use_message(const struct message *m, uint8_t which)
{
    uint8_t header[FRAME_HEADER_SIZE];
    struct message same;
    char name[16];
    frame_put_header(m, header);
    if (frame_get_header(header, &same) < 0 || same.id != m->id || same.type != m->type ||
        same.status != m->status || same.body_len != m->body_len ||
        same.payload_len != m->payload_len)
        abort();
    sink ^= (uint8_t)strlen(frame_type_name(m->type, name));
    touch(m->body, m->body_len);
    touch(m->payload, m->payload_len);
    use_body(m, types[which % TYPES]);
    use_body(m, types[m->type % TYPES]);
}

/* A valid first header whose body is all that follows, up to some payload. */
static void mend(uint8_t *data, size_t size, uint8_t how)
{
    if (size < FRAME_HEADER_SIZE)
        return;
    size_t rest = size - FRAME_HEADER_SIZE, payload = rest * (how & 7) / 16;
    struct message m = {.kind = how & 8 ? FRAME_REPLY : FRAME_REQUEST,
                        .type = data[6],
                        .id = how,
                        .body_len = rest - payload,
                        .payload_len = payload};
    frame_put_header(&m, data);
}

static void follow(const uint8_t *data, size_t size, uint8_t which, size_t piece)
{
    struct inbox in;
    struct message m;
    bool drained;
    int fds[2], more = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
        abort();
    inbox_init(&in, 256);
    for (size_t at = 0; at < size && more == 0; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        if (send(fds[0], data + at, n, MSG_NOSIGNAL) != (ssize_t)n)
            abort();
        while (more == 0 && inbox_receive(&in, &(struct channel){.fd = fds[1]}, MSG_DONTWAIT, &drained) > 0)
            while ((more = inbox_next(&in, &m)) > 0)
                use_message(&m, which);
    }
    if (more > 0 || (more < 0 && more != -EPROTO))
        abort();
    inbox_free(&in);
    close(fds[0]);
    close(fds[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3 || size > 65536) /* what a socket takes at once */
        return 0;
    uint8_t which = data[0], how = data[1], pieces = data[2];
    uint8_t *copy = malloc(size - 2);
    if (!copy)
        return 0;
    memcpy(copy, data + 3, size - 3);
    if (how & 0x80)
        mend(copy, size - 3, how);
    struct message body = {.body = copy, .body_len = size - 3};
    use_body(&body, types[which % TYPES]);
    follow(copy, size - 3, which, pieces ? (size_t)pieces * 8 : 65536);
    free(copy);
    return 0;
}
