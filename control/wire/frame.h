/*
 * Frames: how messages of star.proto stand on a byte stream.
 *
 *   header (32 bytes, little-endian) | body (protobuf) | payload (raw bytes)
 *
 * Everything read from a peer is untrusted: lengths are checked against FRAME_BODY_MAX and
 * FRAME_PAYLOAD_MAX before anything is allocated; a bad magic, kind or length is -EPROTO and the
 * connection must be closed, as the stream cannot be followed any more.
 */
#ifndef UMBEL_WIRE_FRAME_H
#define UMBEL_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "star.pb-c.h"

/* Grows when peers of different builds could misunderstand each other. */
#define PROTOCOL_VERSION 1u

#define FRAME_MAGIC       0x31424d55u /* "UMB1" */
#define FRAME_HEADER_SIZE 32u
/* A directory listing page or a confirm of one pack with many small files stays well below. */
#define FRAME_BODY_MAX (8u << 20)
/* The largest FUSE write that the kernel sends is 1 MiB. */
#define FRAME_PAYLOAD_MAX (1u << 20)
/* Memory that one unpacked body may take: a hostile one grows about 60-fold, honest ones stay far
 * below. */
#define FRAME_UNPACKED_MAX ((size_t)128 << 20)

enum frame_kind { FRAME_REQUEST = 1, FRAME_REPLY = 2, FRAME_NOTIFY = 3 };

/* One message as it was received or is to be sent. body and payload are borrowed: they are valid
 * only as long as the call that passes the message says. status is 0 or -errno (replies only). */
struct message {
    enum frame_kind kind;
    uint16_t type; /* Star__MsgType */
    uint64_t id;
    int32_t status;
    const uint8_t *body;
    size_t body_len;
    const uint8_t *payload;
    size_t payload_len;
    /* Which stream it came by, set by the receiver (0: not known), so that an answer given later
     * does not go to the next stream. Not sent. */
    uint32_t stream;
};

/* Writes the header of m (its lengths, not its bytes) to out[FRAME_HEADER_SIZE]. */
void frame_put_header(const struct message *m, uint8_t out[FRAME_HEADER_SIZE]);

/* Reads a header. body and payload of *m are set to NULL, their lengths as announced.
 * -EPROTO: not a frame, or lengths beyond the limits. */
int frame_get_header(const uint8_t in[FRAME_HEADER_SIZE], struct message *m);

/* Unpacks the body of m as the given message type. NULL: it is not valid protobuf, a string holds a
 * NUL, it unpacks to more than FRAME_UNPACKED_MAX, or memory is short. Free with
 * protobuf_c_message_free_unpacked(). */
ProtobufCMessage *frame_unpack(const struct message *m, const ProtobufCMessageDescriptor *type);

/* The same message once more, in memory of its own, to be freed as above. NULL: no memory. */
ProtobufCMessage *frame_copy(const ProtobufCMessage *m);

/* "LOOKUP", "READ" ... or "type 77": for logs. Static storage for known types; otherwise writes to
 * buf. */
const char *frame_type_name(uint16_t type, char buf[16]);

#endif
