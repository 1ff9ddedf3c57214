/* Frames, their bytes on a stream, and the table of pending calls. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/wire/calls.h"
#include "control/wire/stream.h"

/* ---- headers */

Test(wire_frame, header_round_trip)
{
    struct message all[] = {
        {.kind = FRAME_REQUEST, .type = 65535, .id = UINT64_MAX, .body_len = FRAME_BODY_MAX},
        {.kind = FRAME_REPLY,
         .type = 1,
         .id = 1,
         .status = -4095,
         .payload_len = FRAME_PAYLOAD_MAX},
        {.kind = FRAME_REPLY, .type = 0x1234, .id = 0x0102030405060708, .status = 0},
        {.kind = FRAME_NOTIFY, .type = 34, .body_len = 1, .payload_len = 1},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        uint8_t bytes[FRAME_HEADER_SIZE];
        struct message m;
        frame_put_header(&all[i], bytes);
        cr_assert_eq(frame_get_header(bytes, &m), 0);
        cr_assert_eq(m.kind, all[i].kind);
        cr_assert_eq(m.type, all[i].type);
        cr_assert_eq(m.id, all[i].id);
        cr_assert_eq(m.status, all[i].status);
        cr_assert_eq(m.body_len, all[i].body_len);
        cr_assert_eq(m.payload_len, all[i].payload_len);
        cr_assert_null(m.body);
        cr_assert_null(m.payload);
    }
}

/* The layout is what peers of other builds expect: it must not change by accident. */
Test(wire_frame, header_layout)
{
    static const uint8_t expected[FRAME_HEADER_SIZE] = {
        'U', 'M', 'B',  '1',  2,    0,    0x34, 0x12, 8, 7, 6, 5, 4, 3,
        2,   1,   0xfe, 0xff, 0xff, 0xff, 3,    0,    0, 0, 4, 0, 0, 0};
    struct message m = {.kind = FRAME_REPLY,
                        .type = 0x1234,
                        .id = 0x0102030405060708,
                        .status = -ENOENT,
                        .body_len = 3,
                        .payload_len = 4};
    uint8_t bytes[FRAME_HEADER_SIZE];
    frame_put_header(&m, bytes);
    cr_assert_arr_eq(bytes, expected, sizeof(expected));
}

static int header_error(size_t at, uint8_t value)
{
    struct message m = {.kind = FRAME_REQUEST, .type = 1, .id = 1};
    uint8_t bytes[FRAME_HEADER_SIZE];
    frame_put_header(&m, bytes);
    bytes[at] = value;
    return frame_get_header(bytes, &m);
}

Test(wire_frame, bad_headers)
{
    cr_assert_eq(header_error(0, 'u'), -EPROTO);
    cr_assert_eq(header_error(3, '2'), -EPROTO);
    cr_assert_eq(header_error(4, 0), -EPROTO);
    cr_assert_eq(header_error(4, 4), -EPROTO);
    cr_assert_eq(header_error(16, 1), -EPROTO, "a request has no status");
    struct message m = {.kind = FRAME_REPLY, .status = 1};
    uint8_t bytes[FRAME_HEADER_SIZE];
    frame_put_header(&m, bytes);
    cr_assert_eq(frame_get_header(bytes, &m), -EPROTO, "a status is an error or 0");
    m = (struct message){.kind = FRAME_REPLY, .status = -4096};
    frame_put_header(&m, bytes);
    cr_assert_eq(frame_get_header(bytes, &m), -EPROTO);
    m = (struct message){.kind = FRAME_NOTIFY, .body_len = FRAME_BODY_MAX + 1};
    frame_put_header(&m, bytes);
    cr_assert_eq(frame_get_header(bytes, &m), -EPROTO);
    m = (struct message){.kind = FRAME_NOTIFY, .payload_len = FRAME_PAYLOAD_MAX + 1};
    frame_put_header(&m, bytes);
    cr_assert_eq(frame_get_header(bytes, &m), -EPROTO);
}

Test(wire_frame, type_names)
{
    char buf[16];
    cr_assert_str_eq(frame_type_name(STAR__MSG_TYPE__LOOKUP, buf), "LOOKUP");
    cr_assert_str_eq(frame_type_name(65535, buf), "type 65535");
}

/* ---- bodies */

static ProtobufCMessage *unpack(const void *body, size_t length,
                                const ProtobufCMessageDescriptor *type)
{
    struct message m = {.kind = FRAME_REQUEST, .body = body, .body_len = length};
    return frame_unpack(&m, type);
}

Test(wire_frame, unpack_strings_and_bytes)
{
    /* field 3 (string name), 4 bytes */
    static const uint8_t good[] = {0x1a, 4, 'm', 'n', 't', '1'};
    static const uint8_t cut[] = {0x1a, 4, 'm', 0, 't', '1'};
    static const uint8_t truncated[] = {0x1a, 5, 'm', 'n', 't', '1'};
    Star__Hello *hello = (Star__Hello *)unpack(good, sizeof(good), &star__hello__descriptor);
    cr_assert_not_null(hello);
    cr_assert_str_eq(hello->name, "mnt1");
    protobuf_c_message_free_unpacked(&hello->base, NULL);
    cr_assert_null(unpack(cut, sizeof(cut), &star__hello__descriptor));
    cr_assert_null(unpack(truncated, sizeof(truncated), &star__hello__descriptor));

    /* Names of files are bytes; a NUL in them is for the receiver to refuse. */
    static const uint8_t name[] = {0x12, 3, 'a', 0, 'b'};
    Star__Lookup *lookup = (Star__Lookup *)unpack(name, sizeof(name), &star__lookup__descriptor);
    cr_assert_not_null(lookup);
    cr_assert_eq(lookup->name.len, 3);
    protobuf_c_message_free_unpacked(&lookup->base, NULL);

    /* In a message inside: EntryReply.open (4).address (2). */
    static const uint8_t inner[] = {0x22, 5, 0x12, 3, 'a', 0, 'b'};
    cr_assert_null(unpack(inner, sizeof(inner), &star__entry_reply__descriptor));
    cr_assert_not_null(hello = (Star__Hello *)unpack(NULL, 0, &star__hello__descriptor));
    protobuf_c_message_free_unpacked(&hello->base, NULL);
}

/* Two bytes on the wire become a structure of more than a hundred: the whole must stay bounded. */
Test(wire_frame, unpack_is_bounded)
{
    uint8_t *bomb = malloc(FRAME_BODY_MAX);
    for (size_t i = 0; i < FRAME_BODY_MAX; i += 2) {
        bomb[i] = 0x0a; /* ReadDirReply.entries, empty */
        bomb[i + 1] = 0;
    }
    cr_assert_null(unpack(bomb, FRAME_BODY_MAX, &star__read_dir_reply__descriptor));
    ProtobufCMessage *m = unpack(bomb, 2000, &star__read_dir_reply__descriptor);
    cr_assert_not_null(m);
    cr_assert_eq(((Star__ReadDirReply *)m)->n_entries, 1000);
    protobuf_c_message_free_unpacked(m, NULL);
    free(bomb);
}

/* ---- inbox */

static size_t put_frame(uint8_t *out, uint64_t id, size_t body_len, size_t payload_len)
{
    struct message m = {.kind = FRAME_REQUEST,
                        .type = 1,
                        .id = id,
                        .body_len = body_len,
                        .payload_len = payload_len};
    frame_put_header(&m, out);
    memset(out + FRAME_HEADER_SIZE, (int)id, body_len);
    memset(out + FRAME_HEADER_SIZE + body_len, (int)id + 1, payload_len);
    return FRAME_HEADER_SIZE + body_len + payload_len;
}

static void check_frame(const struct message *m, uint64_t id, size_t body_len, size_t payload_len)
{
    cr_assert_eq(m->id, id);
    cr_assert_eq(m->body_len, body_len);
    cr_assert_eq(m->payload_len, payload_len);
    for (size_t i = 0; i < body_len; i++)
        cr_assert_eq(m->body[i], (uint8_t)id);
    for (size_t i = 0; i < payload_len; i++)
        cr_assert_eq(m->payload[i], (uint8_t)(id + 1));
}

/* Frames arrive whole, whatever pieces the stream comes in. */
Test(wire_frame, inbox_any_pieces)
{
    uint8_t bytes[1024];
    size_t total = 0;
    for (uint64_t id = 1; id <= 5; id++)
        total += put_frame(bytes + total, id, id * 7, id * 5);
    for (size_t piece = 1; piece <= total; piece++) {
        struct inbox in;
        int fds[2];
        uint64_t next = 1;
        bool drained;
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        inbox_init(&in, 200); /* small: it has to move and to grow */
        for (size_t at = 0; at < total; at += piece) {
            size_t n = at + piece < total ? piece : total - at;
            cr_assert_eq(write(fds[0], bytes + at, n), (ssize_t)n);
            while (inbox_receive(&in, &(struct channel){.fd = fds[1]}, MSG_DONTWAIT, &drained) >
                   0) {
                struct message m;
                int more;
                while ((more = inbox_next(&in, &m)) > 0) {
                    check_frame(&m, next, next * 7, next * 5);
                    next++;
                }
                cr_assert_eq(more, 0);
            }
        }
        cr_assert_eq(next, 6, "pieces of %zu", piece);
        close(fds[0]);
        cr_assert_eq(inbox_receive(&in, &(struct channel){.fd = fds[1]}, 0, &drained), -ECONNRESET);
        close(fds[1]);
        inbox_free(&in);
    }
}

Test(wire_frame, inbox_grows_and_shrinks)
{
    enum { BODY = 300000, PAYLOAD = 200000 };
    uint8_t *bytes = malloc(BODY + PAYLOAD + 1000);
    size_t total = put_frame(bytes, 9, BODY, PAYLOAD);
    total += put_frame(bytes + total, 10, 3, 0);
    struct inbox in;
    struct message m;
    int fds[2], got = 0;
    bool drained;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    inbox_init(&in, STREAM_INBOX_SMALL);
    for (size_t at = 0; at < total;) {
        ssize_t n = send(fds[0], bytes + at, total - at, MSG_DONTWAIT);
        at += n > 0 ? (size_t)n : 0;
        while (inbox_receive(&in, &(struct channel){.fd = fds[1]}, MSG_DONTWAIT, &drained) > 0)
            while (inbox_next(&in, &m) > 0) {
                check_frame(&m, got ? 10 : 9, got ? 3 : BODY, got ? 0 : PAYLOAD);
                got++;
            }
    }
    cr_assert_eq(got, 2);
    cr_assert_eq(inbox_receive(&in, &(struct channel){.fd = fds[1]}, MSG_DONTWAIT, &drained),
                 -EAGAIN);
    cr_assert_eq(in.size, STREAM_INBOX_SMALL);
    close(fds[0]);
    close(fds[1]);
    inbox_free(&in);
    free(bytes);
}

/* ---- outbox */

Test(wire_frame, outbox_keeps_order)
{
    struct outbox out = {0};
    int fds[2];
    uint32_t put = 0, got = 0;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    while (got < 300000) {
        for (int i = 0; i < 3000 && put < 300000; i++, put++) {
            struct iovec iov[] = {{&put, 1}, {(uint8_t *)&put + 1, 0}, {(uint8_t *)&put + 1, 3}};
            cr_assert_eq(outbox_add(&out, iov, 3), 0);
        }
        int err = outbox_send(&out, &(struct channel){.fd = fds[0]});
        cr_assert(err == 0 || err == -EAGAIN);
        uint32_t some[1000]; /* slower than what comes: it has to wait in the outbox */
        ssize_t n = recv(fds[1], some, sizeof(some), MSG_DONTWAIT);
        cr_assert(n > 0 && n % 4 == 0);
        for (ssize_t i = 0; i < n / 4; i++)
            cr_assert_eq(some[i], got++);
    }
    cr_assert_eq(outbox_waiting(&out), 0);
    close(fds[1]);
    cr_assert_eq(outbox_add(&out, &(struct iovec){&put, 4}, 1), 0);
    cr_assert_eq(outbox_send(&out, &(struct channel){.fd = fds[0]}), -EPIPE, "and no signal");
    close(fds[0]);
    outbox_free(&out);
}

/* ---- pending calls */

Test(wire_frame, calls_step_over_slow_ones)
{
    struct calls t;
    int err;
    cr_assert_eq(calls_init(&t, 1000, UINT64_MAX - 5), 0); /* ids wrap, and 0 is left out */
    struct call *slow = calls_add(&t, 500, &err);
    uint64_t slow_id = slow->id;
    for (int i = 0; i < 100000; i++) {
        struct call *c = calls_add(&t, CALLS_NO_DEADLINE, &err);
        cr_assert_not_null(c);
        cr_assert_neq(c->id, 0);
        cr_assert_eq(calls_find(&t, c->id), c);
        calls_remove(&t, c);
    }
    cr_assert_not_null(calls_find(&t, slow_id));
    cr_assert_null(calls_find(&t, slow_id + t.size));
    cr_assert_null(calls_find(&t, 0));
    calls_free(&t);
}

Test(wire_frame, calls_grow_and_expire)
{
    struct calls t;
    int err;
    cr_assert_eq(calls_init(&t, 5000, 1), 0);
    for (int i = 1; i <= 5000; i++) {
        struct call *c = calls_add(&t, i % 2 ? 10000 - i : CALLS_NO_DEADLINE, &err);
        cr_assert_not_null(c);
        c->length = (uint32_t)i;
    }
    cr_assert_null(calls_add(&t, 1, &err));
    cr_assert_eq(err, -EBUSY);
    for (uint64_t id = 1; id <= 5000; id++)
        cr_assert_eq(calls_find(&t, id)->length, id);
    struct call c;
    uint32_t at = 0;
    cr_assert_not(calls_expire(&t, 5000, &at, &c), "the first deadline is at 5001");
    unsigned expired = 0;
    at = 0;
    while (calls_expire(&t, 6000, &at, &c)) {
        cr_assert_leq(c.deadline, 6000);
        expired++;
    }
    cr_assert_eq(expired, 500);
    cr_assert_eq(t.count, 4500);
    cr_assert_eq(t.earliest, 6001);
    calls_free(&t);
}

/* ---- damaged frames */

/* A frame with a real message in it: of its bytes, the body's come behind the header. */
static size_t real_frame(uint8_t *out, size_t *body_len)
{
    Star__HomeAttrs attrs = STAR__HOME_ATTRS__INIT;
    Star__CutRecord records[2] = {STAR__CUT_RECORD__INIT, STAR__CUT_RECORD__INIT};
    Star__CutRecord *record_list[] = {&records[0], &records[1]};
    Star__CutFile file = STAR__CUT_FILE__INIT, *files[] = {&file};
    Star__ConfirmPack pack = STAR__CONFIRM_PACK__INIT, *packs[] = {&pack};
    Star__Confirm body = STAR__CONFIRM__INIT;
    struct message m = {.kind = FRAME_REQUEST, .type = STAR__MSG_TYPE__CONFIRM, .id = 77};

    attrs.ino = 1u << 30;
    records[1].offset = pack.size = 1ull << 40;
    file.attrs = &attrs;
    file.records = record_list;
    file.n_records = 2;
    body.files = files;
    body.packs = packs;
    body.n_files = body.n_packs = 1;
    m.body_len = *body_len = star__confirm__pack(&body, out + FRAME_HEADER_SIZE);
    m.payload_len = 40;
    frame_put_header(&m, out);
    memset(out + FRAME_HEADER_SIZE + m.body_len, 'p', m.payload_len);
    return FRAME_HEADER_SIZE + m.body_len + m.payload_len;
}

/* What comes of these bytes, and then the end: 1 a message, 0 none, -errno. */
static int received(const uint8_t *bytes, size_t n, struct inbox *in, struct message *m)
{
    int fds[2];
    bool drained;

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    if (n > 0)
        cr_assert_eq(write(fds[0], bytes, n), (ssize_t)n);
    close(fds[0]);
    int rc = 0, got = 1;
    while (got > 0 && rc == 0) {
        got = inbox_receive(in, &(struct channel){.fd = fds[1]}, 0, &drained);
        rc = got > 0 ? inbox_next(in, m) : 0;
    }
    cr_assert(got > 0 || got == -ECONNRESET);
    close(fds[1]);
    return rc;
}

Test(wire_frame, cut_off_at_every_byte)
{
    uint8_t bytes[512];
    size_t body_len, total = real_frame(bytes, &body_len);

    for (size_t n = 0; n <= total; n++) {
        struct inbox in;
        struct message m;
        inbox_init(&in, 256);
        cr_assert_eq(received(bytes, n, &in, &m), n == total, "%zu of %zu bytes", n, total);
        inbox_free(&in);
    }
    for (size_t n = 0; n < body_len; n++) {
        uint8_t *exact = malloc(n + 1); /* a sanitizer sees who reads on */
        memcpy(exact, bytes + FRAME_HEADER_SIZE, n);
        ProtobufCMessage *m = unpack(exact, n, &star__confirm__descriptor);
        if (m)
            protobuf_c_message_free_unpacked(m, NULL);
        free(exact);
    }
}

Test(wire_frame, each_bit_flipped)
{
    uint8_t bytes[512];
    size_t body_len, total = real_frame(bytes, &body_len);

    for (size_t bit = 0; bit < total * 8; bit++) {
        struct inbox in;
        struct message m;
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        inbox_init(&in, 256);
        int rc = received(bytes, total, &in, &m);
        cr_assert(rc == 1 || rc == 0 || rc == -EPROTO, "bit %zu: %d", bit, rc);
        if (bit < 32)
            cr_assert_eq(rc, -EPROTO, "the magic is not looked at");
        if (rc == 1) {
            cr_assert_leq(m.body_len + m.payload_len, total - FRAME_HEADER_SIZE);
            ProtobufCMessage *u = frame_unpack(&m, &star__confirm__descriptor);
            if (u)
                protobuf_c_message_free_unpacked(u, NULL);
        }
        inbox_free(&in);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}
